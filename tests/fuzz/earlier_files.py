"""Damage to files that commands have written before and read again.

A file that a command left, or one of a run or a training that it reads, is damaged. The command
must name it, leave all as it is, or leave what it leaves undisturbed.
"""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from eva_coralbay.errors import EvaCoralbayError
from tests.fuzz import kill_folder, kills, mutations
from tests.fuzz.campaign import Kind

_CONTINUED = ("prepare", "intake", "embed", "segment", "build", "submit")
"""Commands that find what they have left before."""

_READERS = ("views", "export", "segment", "curves")
"""Commands that read what a training or an evaluation has left."""


_UNHASHED = ("curve_val.csv", "lab__net.yaml", "lab__other.yaml")
"""Files whose values nothing else states: a table of a curve, and cards, which users fill in."""


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "plan.json"
    is_input = bool(random.integers(2))
    command = mutations.choose(random, _READERS if is_input else _CONTINUED)
    plan = {
        "command": command,
        "is_input": is_input,
        "file": float(random.random()),
        "seed": int(random.integers(2**31)),
    }
    path.write_text(json.dumps(plan))
    return path


def _read(path: pathlib.Path) -> Any:
    """Returns the files before and after the command found one of them damaged."""
    plan = json.loads(path.read_text())
    command = kills.COMMANDS[plan["command"]]
    expected = kills.find_undisturbed(plan["command"])
    folder = kills.make_folder(command)
    if plan["is_input"]:
        damaged = _damage(plan, _copy_inputs(folder, command.inputs[-1:]))
    else:
        if kills.run(command, folder) != 0:
            raise AssertionError(f"the command fails: {plan}")
        damaged = _damage(plan, _list_files([*folder.glob("out*")]))
    before = kills.hash_tree(folder)
    status = kills.run(command, folder)
    said = kills.SAID.read_text(errors="replace")
    if "Traceback" in said or status not in (0, 1):
        raise AssertionError(f"it ends with {status}: {plan}, {damaged}\n{said}")
    if status == 1:
        is_named = damaged.name.partition(".")[0] in " ".join(said.split())
        name = path.name if is_named else ""
        raise EvaCoralbayError(f"{name} {damaged}: {' '.join(said.split())[-600:]}")
    return expected.tree, before, kills.hash_tree(folder), damaged.name


def _copy_inputs(folder: pathlib.Path, names: Sequence[str]) -> list[pathlib.Path]:
    """Puts copies of some inputs in the place of the shared ones, and returns their files."""
    (folder / "in").unlink()
    for shared in (kill_folder.FOLDER / "in").iterdir():
        if shared.name in names:
            shutil.copytree(shared, folder / "in" / shared.name)
        else:
            (folder / "in").mkdir(exist_ok=True)
            (folder / "in" / shared.name).symlink_to(shared)
    return _list_files([folder / "in" / name for name in names])


def _list_files(places: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    found = [file for place in places for file in (place, *place.rglob("*"))]
    return sorted(file for file in found if file.is_file())


def _damage(plan: Any, files: Sequence[pathlib.Path]) -> pathlib.Path:
    """Damages one of some files, and returns which."""
    random = np.random.default_rng(plan["seed"])
    damaged = files[int(plan["file"] * len(files))]
    kind, content = random.integers(8), damaged.read_bytes()
    if kind == 0:
        damaged.write_bytes(mutations.choose(random, (b"", b"{}", b"[]", b"null", b"[" * 99_999)))
    elif kind == 1:
        damaged.write_bytes(random.bytes(3000))
    else:
        damaged.write_bytes(mutations.damage(random, content))
    return damaged


def _check(_: pathlib.Path, result: Any) -> str | None:
    undisturbed, before, after, damaged = result
    if after in (undisturbed, before) or damaged in _UNHASHED:
        return None
    different = [
        name for name in {**undisturbed, **after} if undisturbed.get(name) != after.get(name)
    ]
    return f"{damaged} was damaged, and other content is in {different}"


EARLIER = Kind(
    "earlier", _write, _read, _check, inputs=60, max_seconds=300.0, max_growth=512 * 2**20
)
