"""Sessions of `eva fit` that go on where they were interrupted.

The same command finds the folder of its session again: it is the newest one below the output folder
whose first run has the same resolved configuration, that has no results yet, and that no other
process works on.

    <default_root_dir>/<session>/   named by the time, the config, and own weights if there are any
        session.lock                held by the process that works on the session
        results.json                what eva writes at the end of the session
        run_<k>/config.yaml         the resolved configuration
        run_<k>/scores.json         what eva was given of each stage that is over
        run_<k>/checkpoints/last.ckpt   all that the next step follows from
"""

import atexit
import contextlib
import json
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import yaml
from loguru import logger

from eva_coralbay import _atomic_files, _file_locks
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import provenance

_RESUMED_COMMANDS = ("fit", "predict_fit")
"""The commands of eva that train."""

_CONFIG_FILE = "config.yaml"
_SCORES_FILE = "scores.json"
_RESULTS_FILE = "results.json"
_LOCK_FILE = "session.lock"

_LONGEST_NAME = 40
"""The most characters of a checkpoint's name that the folder of a session has."""

_TRIES, _WAIT_S = 5, 0.1
"""How often it is tried to remove a folder, and the seconds between."""

_held = contextlib.ExitStack()
"""The locks of this process, which are held until it ends."""

_unused: list[pathlib.Path] = []
"""The session of this process, as long as nothing of it is worth keeping."""


class _BusyError(Exception):
    """Another process works on a session."""


def config_content() -> bytes | None:
    """Returns the resolved configuration as its file has it, `None` if eva did not start this."""
    config = provenance.resolved_config()
    return None if config is None else yaml.safe_dump(config, sort_keys=False).encode()


def name_of_weights(config: Mapping[str, Any] | None) -> str:
    """Returns what the folder of a session is called by the own weights that a configuration names.

    Args:
        config: The resolved configuration, `None` if eva did not start this.

    Returns:
        The name of the file or the folder, or of the repository on the Hub, in characters that any
        path may have; "" if the weights are those that the name of the model stands for.
    """
    checkpoint = _find_checkpoint((config or {}).get("model"))
    path = pathlib.Path(checkpoint)
    if not path.exists():
        path = pathlib.Path(checkpoint.partition("@")[0].partition("#")[0])
    name = path.stem if path.is_file() else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST_NAME]


def is_resumable() -> bool:
    """Whether this process is a command of eva that trains."""
    return provenance.is_started_by_eva() and any(
        command in sys.argv[1:2] for command in _RESUMED_COMMANDS
    )


def find_interrupted(root: pathlib.Path, config: bytes) -> str | None:
    """Finds the session that a command began, and takes its lock.

    Args:
        root: The output folder.
        config: The resolved configuration of the command.

    Returns:
        The name of its folder, `None` if there is none to go on with.
    """
    for path in sorted(root.glob(f"*/run_0/{_CONFIG_FILE}"), reverse=True):
        session = path.parents[1]
        try:
            known = path.read_bytes()
        except FileNotFoundError:  # its process has ended by an error, and removed it
            continue
        if (session / _RESULTS_FILE).exists() or known != config:
            continue
        if hold(session):
            logger.info(
                f"Going on with the session in '{session}', which was interrupted. For a new one, "
                "set another OUTPUT_ROOT."
            )
            return session.name
        logger.warning(f"Another process works on '{session}', so this is a session of its own.")
    return None


def hold(session: pathlib.Path) -> bool:
    """Takes the lock of a session until this process ends.

    Args:
        session: The folder of the session.

    Returns:
        Whether no other process holds it.
    """

    def refuse() -> None:
        raise _BusyError

    session.mkdir(parents=True, exist_ok=True)
    try:
        _held.enter_context(_file_locks.locked(session / _LOCK_FILE, on_busy=refuse))
    except _BusyError:
        return False
    return True


def begin(session: pathlib.Path) -> None:
    """Takes the lock of a new session.

    An error that ends this process before there is anything to `keep`, such as a setting that is
    wrong, leaves no folder.

    Args:
        session: The folder of the session, which is created.
    """
    if hold(session):
        _unused.append(session)


def keep() -> None:
    """States that the session has begun: from now on its folder stays."""
    _unused.clear()


def _end() -> None:
    """Ends the session of this process."""
    if getattr(sys, "last_type", None) is not None:
        for session in _unused:
            _remove(session)
    _held.close()


atexit.register(_end)


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder to which threads of loggers may still write."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_WAIT_S)


def _find_checkpoint(part: Any) -> str:
    """Returns the `checkpoint` in a part of a configuration, "" if there is none."""
    if not isinstance(part, Mapping):
        return ""
    if isinstance(part.get("checkpoint"), str):
        return part["checkpoint"]
    return next(filter(None, map(_find_checkpoint, part.values())), "")


class Progress:
    """What of a run is over."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Initializes the progress.

        Args:
            folder: The folder of the run.
        """
        self._path = folder / _SCORES_FILE

    @property
    def is_complete(self) -> bool:
        """Whether all stages of the run are over."""
        return bool(self._read().get("is_complete"))

    def scores(self, stage: str) -> Any:
        """Returns what eva was given of a stage that is over, `None` of another one.

        Args:
            stage: The name of the stage.
        """
        return self._read().get(stage)

    def keep(self, stage: str, scores: Any) -> None:
        """States that a stage is over.

        Args:
            stage: The name of the stage.
            scores: What eva sums up of it.
        """
        self._write({**self._read(), stage: scores})

    def complete(self) -> None:
        """States that all stages of the run are over."""
        self._write({**self._read(), "is_complete": True})

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise EvaCoralbayError(
                f"'{self._path}' is damaged. Remove it, and the stages of its run are done again."
            )
        return content

    def _write(self, content: dict[str, Any]) -> None:
        keep()
        _atomic_files.write_atomically(self._path, json.dumps(content, indent=2).encode())
