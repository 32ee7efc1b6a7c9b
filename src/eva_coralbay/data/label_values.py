"""What the values of a label map mean: the `labels` of a `dataset.json`.

Version 2 of nnU-Net maps names to values (`{"background": 0, "liver": 1}`), version 1 and the
Decathlon map values to names (`{"0": "background", "1": "liver"}`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from loguru import logger

from eva_coralbay.data import foreign_files
from eva_coralbay.data.foreign_files import UnusableError

IGNORE_LABEL = -1
"""The value of voxels that are left out of loss and metrics, in every label map in memory."""

_BACKGROUND = "background"
"""The name that nnU-Net and the Decathlon give to the label value 0."""

_IGNORE_NAME = "ignore"
"""The name that nnU-Net gives to the label of such voxels."""


class Labels(NamedTuple):
    """The labels of a data set."""

    classes: list[str]
    """The name of each label value, the background first."""

    ignored: int | None
    """The value that stands for `IGNORE_LABEL` in the files, if there is one."""


def parse(labels: Any) -> Labels:
    """Reads the labels of a description.

    Whether names or values come first is decided by the values: numbers, and lists of one number,
    are values. So a name may be a number, as in `{"background": 0, "1": 2, "2": 1}`.

    Args:
        labels: The mapping in either direction.

    Raises:
        UnusableError: If it is no such mapping, a label is a region of several values, two labels
            have one value, the values have gaps, or the background has another value than 0.
    """
    if not isinstance(labels, dict) or not labels:
        raise UnusableError("it has no 'labels'", "Map each label name to its value.")
    values = {
        value: foreign_files.check_name(name, f"the name of label {value}").strip()
        for value, name in _by_value(labels).items()
    }
    ignored = next((value for value, name in values.items() if name == _IGNORE_NAME), None)
    known = {value: name for value, name in values.items() if value != ignored}
    if sorted(known) != list(range(len(known))):
        raise UnusableError(
            f"the label values must be 0 (background), 1, 2, ... without gaps, got {sorted(known)}",
            "Renumber the labels.",
        )
    _check_background(known)
    if len(set(known.values())) < len(known):
        raise UnusableError(
            f"two labels have the same name: {list(known.values())}", "Rename one of them."
        )
    return Labels(["background", *(known[value] for value in range(1, len(known)))], ignored)


def _check_background(names: Mapping[int, str]) -> None:
    """Checks that no other value than 0 is called background, and says if 0 is called otherwise."""
    for value, name in names.items():
        if value > 0 and name.lower() == _BACKGROUND:
            raise UnusableError(
                f"the background has the value {value}, but it must have 0 ('{names[0]}' has it)",
                "Renumber the labels, in the label maps too.",
            )
    if names[0].lower() != _BACKGROUND:
        logger.warning(
            f"Label 0 is called '{names[0]}'. It is the background, which is not scored: voxels of "
            "a class need a value from 1 on."
        )


def _by_value(labels: Mapping[str, Any]) -> dict[int, str]:
    """Returns the name of each value."""
    are_names = all(isinstance(name, str) for name in labels.values())
    if are_names and all(_to_value(key) is not None for key in labels):
        pairs = [(_to_value(value), name) for value, name in labels.items()]
    else:
        _check_regions(labels)
        pairs = [(_to_value(value), name) for name, value in labels.items()]
    found: dict[int, str] = {}
    for value, name in pairs:
        if value is None:
            raise UnusableError(
                f"the value of the label '{name}' is {labels[name]!r:.100}, which is not a whole "
                "number from 0 on",
                "Map each label name to its value.",
            )
        if value in found:
            raise UnusableError(
                f"the labels '{found[value]}' and '{name}' have the same value {value}",
                "Renumber the labels.",
            )
        found[value] = name
    return found


def _to_value(value: Any) -> int | None:
    """Returns a label value; None if it is none. `2`, `2.0`, `"2"` and `[2]` are equal."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in range(2**15):
        return int(value)
    return None


def _check_regions(labels: Mapping[str, Any]) -> None:
    """Checks that each label has one value, and says what to write in the place of regions.

    A region of nnU-Net is a union of values that may overlap others; here each voxel has one label.
    """
    regions = {
        name: value for name, value in labels.items() if isinstance(value, list) and len(value) != 1
    }
    if not regions:
        return
    values = {
        single
        for value in labels.values()
        for item in (value if isinstance(value, list) else [value])
        if (single := _to_value(item)) is not None
    }
    single = {_to_value(value): name for name, value in labels.items() if name not in regions}
    plain = {single.get(value, f"part_{value}"): value for value in sorted(values)}
    name, value = next(iter(regions.items()))
    raise UnusableError(
        f"the label '{name}' is the region {str(value)[:100]}, a union of values, but each voxel "
        "is scored by one label",
        f"Name the values in the files instead, such as {str(plain)[:300]}; the score of a region "
        "cannot be computed from them.",
    )
