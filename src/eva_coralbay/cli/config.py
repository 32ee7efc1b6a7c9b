"""The command `eva-coralbay config`: where the configs of this installation lie."""

import argparse
import pathlib
import re
from collections.abc import Iterator

from typing_extensions import override

import eva_coralbay
from eva_coralbay import _atomic_files
from eva_coralbay.cli import _subcommand
from eva_coralbay.errors import EvaCoralbayError

_PACKAGE = pathlib.Path(eva_coralbay.__file__).parent

_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs/vision/radiology")
"""Where the configs are: in an installed package, and in a clone that is installed editable."""

_SHARED = "_shared"
"""The folder of what several configs take; nothing in it is a config by itself."""

_REFERENCE = re.compile(r"(?<=\s)[\w./-]+\.yaml\b")
"""The path of another file in a config, relative to it."""


class Config(_subcommand.Subcommand):
    """Prints the path of a config, for eva's `--config`; without a name, lists all names.

    A config takes what it shares with others from files beside it, so copy it by `--copy` only.
    """

    name = "config"
    help = "print the path of a config, or copy the config to change it"
    examples = """
        eva-coralbay config
        eva fit --config "$(eva-coralbay config phantom)"
        eva predict_fit --config "$(eva-coralbay config offline/luna25)"
        eva-coralbay config btcv --copy my_configs
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "config",
            metavar="NAME",
            nargs="?",
            help="a task such as `btcv`, or more of the path, such as `offline/luna25`",
        )
        parser.add_argument(
            "--copy",
            metavar="DIR",
            help="copy it here with the files that it includes, and print the path of the copy",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the path."""
        if arguments.config is None:
            print("\n".join(_names()))
            return 0
        path = find_config(arguments.config)
        print(path if arguments.copy is None else _copy(path, pathlib.Path(arguments.copy)))
        return 0


def find_config(name: str) -> pathlib.Path:
    """Returns the path of a config.

    Args:
        name: Its file's name without `.yaml`, after as many of its folders as are needed to tell
            it from others; a config of the folder `online` needs none.

    Raises:
        EvaCoralbayError: If no config has that name, or several have it.
    """
    wanted = name.removesuffix(".yaml").split("/")
    found = [known for known in _names() if _is_meant(known.split("/"), wanted)]
    found = [known for known in found if known.startswith("online/")] or found
    if len(found) != 1:
        several = f"several configs '{name}': name one of {', '.join(found)}."
        none = f"no config '{name}': `eva-coralbay config` lists them all."
        raise EvaCoralbayError(f"There are {several}" if found else f"There is {none}")
    return _folder() / f"{found[0]}.yaml"


def _is_meant(known: list[str], wanted: list[str]) -> bool:
    """Whether a name has the wanted parts in their order, the file's name last."""
    parts = iter(known)
    return known[-1] == wanted[-1] and all(part in parts for part in wanted)


def _folder() -> pathlib.Path:
    """Returns the folder of the configs."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise EvaCoralbayError(
            f"The configs of eva-coralbay are not where they are installed, in '{_FOLDERS[0]}': "
            "install the package again."
        )
    return folder


def _names() -> list[str]:
    """Returns the names of all configs, with their folders."""
    paths = (path.relative_to(_folder()) for path in _folder().rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths if path.parts[0] != _SHARED)


def _copy(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copies a config and what it takes into a folder, where they lie as they did."""
    names = {file.relative_to(_folder()) for file in _with_references(path)}
    content = {name: (_folder() / name).read_bytes() for name in names}
    there = sorted(
        str(folder / name)
        for name in names
        if (folder / name).exists() and (folder / name).read_bytes() != content[name]
    )
    if there:
        raise EvaCoralbayError(
            f"These files are there already, and are other ones: {', '.join(there)}. Name another "
            "folder, or remove them."
        )
    for name in names:
        _atomic_files.write_atomically(folder / name, content[name])
    return folder / path.relative_to(_folder())


def _with_references(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a config and the files that it takes, and those that they take."""
    yield path
    for reference in _REFERENCE.findall(path.read_text(encoding="utf-8")):
        file = (path.parent / reference).resolve()
        if file.is_file():
            yield from _with_references(file)
