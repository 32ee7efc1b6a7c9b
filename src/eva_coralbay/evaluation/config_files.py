"""The config files of a run: values that would be ignored without a word are an error.

A config takes what it shares with others by its key `config`. Where both set a value, jsonargparse
lets that of the shared file count, whatever the order.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from eva_coralbay.errors import EvaCoralbayError

_OPTION = "--config"
"""The option of eva that names a config."""


def check(argv: Sequence[str]) -> None:
    """Checks that no config sets a value that the file it takes sets differently.

    Args:
        argv: The command line of eva.

    Raises:
        EvaCoralbayError: If one does; names the values and says how to set them.
    """
    for path in map(pathlib.Path, _find_configs(argv)):
        content = _read(path)
        if not isinstance(content.get("config"), str):
            continue
        shared_path = path.parent / content["config"]
        own, shared = dict(_leaves(content)), dict(_leaves(_read(shared_path)))
        ignored = [key for key, value in own.items() if shared.get(key, value) != value]
        if ignored:
            raise EvaCoralbayError(
                f"'{path}' sets {', '.join(ignored)}, but '{shared_path}', which it takes by "
                f"`config`, sets other values, and those count. Pass `--{ignored[0]} VALUE` to "
                "eva, set the environment variable that the shared file reads, or edit that file."
            )


def _find_configs(argv: Sequence[str]) -> Iterator[str]:
    """Yields the paths that are given as configs."""
    for option, value in zip(argv, [*argv[1:], ""], strict=True):
        if option == _OPTION:
            yield value
        elif option.startswith(f"{_OPTION}="):
            yield option.removeprefix(f"{_OPTION}=")


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    """Reads a config; what cannot be read is left to eva's parser, which says what is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of every leaf."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
