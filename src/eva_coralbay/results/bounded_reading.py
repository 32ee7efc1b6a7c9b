"""Reads JSON and YAML files that strangers have written, within limits.

A file is read only if it is a regular file and not too large: no link to a device or a pipe is
opened. Nothing in it is executed. Its content is bounded in depth and in the number of values that
YAML's aliases stand for, before any value is built, so that a small file cannot take forever.
"""

import json
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import yaml
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError

_MAX_DEPTH = 60
"""How deep values may be nested."""

_MAX_VALUES = 20_000
"""The most values of a YAML file. What an alias repeats counts every time."""

_MAX_NUMBER = 100
"""The most characters of a number."""


class ForeignFileError(EvaCoralbayError):
    """A file of others cannot be read. The message begins with its path."""


def read_text(path: str | os.PathLike[str], *, max_bytes: int) -> str:
    """Reads a text file in UTF-8.

    Args:
        path: The path of the file.
        max_bytes: The most bytes that are read.

    Raises:
        ForeignFileError: If it cannot be read, is not a regular file, is too large or not UTF-8.
    """
    try:
        status = pathlib.Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ForeignFileError(f"{path} is not a regular file, so it is not read.")
        if status.st_size > max_bytes:
            raise ForeignFileError(
                f"{path} has {status.st_size:,} bytes, but such a file has at most {max_bytes:,}."
            )
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ForeignFileError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ForeignFileError(f"{path} is not text in UTF-8: {error.reason}.") from error


def read_json(path: str | os.PathLike[str], *, max_bytes: int) -> Any:
    """Reads a JSON file. A name may be in an object once only, as programs choose differently.

    Args:
        path: The path of the file.
        max_bytes: The most bytes that are read.

    Raises:
        ForeignFileError: If it cannot be read, or is not JSON, which has no NaN and infinity.
    """
    text = read_text(path, max_bytes=max_bytes)
    try:
        content = json.loads(text, object_pairs_hook=_to_distinct, parse_constant=_reject_constant)
        _check_values(content)
    except (ValueError, RecursionError) as error:
        raise ForeignFileError(f"{path} is not a JSON file: {error}.") from error
    return content


def read_yaml(path: str | os.PathLike[str], *, max_bytes: int) -> Any:
    """Reads a YAML file. Dates are text.

    Args:
        path: The path of the file.
        max_bytes: The most bytes that are read.

    Raises:
        ForeignFileError: If it cannot be read, is not a YAML file or stands for too many values.
    """
    text = read_text(path, max_bytes=max_bytes)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ForeignFileError(f"{path} is not a YAML file: {error}.") from error


def parse_yaml(text: str) -> Any:
    """Parses text in YAML within the limits. Dates are text.

    Args:
        text: The text.

    Raises:
        ValueError: If it is not YAML or stands for too many values.
    """
    try:
        _check_events(text)
        content = _Loader(text).get_single_data()
        _check_values(content)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return content


class _Loader(yaml.SafeLoader):
    """Reads no dates, which may be none, and no numbers of a length that takes long to read."""

    @override
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if is_number and len(str(node.value)) > _MAX_NUMBER:
            raise ValueError(f"a number has {len(str(node.value))} characters")
        return super().construct_object(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _check_events(text: str) -> None:
    """Checks depth and number of values, without building any."""
    sizes: dict[str, int] = {}
    open_anchors: list[tuple[str | None, int]] = []
    n_values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            n_values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            n_values += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append((event.anchor, n_values))
            n_values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = n_values - before
        if n_values > _MAX_VALUES:
            raise ValueError(f"it stands for more than {_MAX_VALUES} values")
        if len(open_anchors) > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def _check_values(content: Any) -> None:
    """Checks the depth, and that every text can be written again in UTF-8, and has no NUL."""
    level: list[Any] = [content]
    for _ in range(_MAX_DEPTH + 1):
        for text in (value for value in level if isinstance(value, str)):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError("a text has half of a surrogate pair: it is not text") from error
            if "\0" in text:
                raise ValueError("a text has the character NUL, which no path or command may have")
        level = [inner for value in level for inner in _list_inner(value)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def _list_inner(value: Any) -> Iterator[Any]:
    """Yields what a value holds, the names of an object too."""
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _to_distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a JSON object."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"`{next(name for name in names if names.count(name) > 1)}` appears twice")
    return content


def _reject_constant(constant: str) -> NoReturn:
    """Rejects NaN and infinity, which Python reads but JSON does not have."""
    raise ValueError(f"{constant} is not a value in JSON; what is not defined is null")
