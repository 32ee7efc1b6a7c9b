"""Wording that several messages share."""

from collections.abc import Iterable

_SHOWN = 10
"""The most names that a message lists."""


def list_names(names: Iterable[str], *, limit: int = _SHOWN) -> str:
    """Lists names in their order, the first few of many.

    Args:
        names: The names.
        limit: The most names that are shown.

    Returns:
        For example "a, b and 7 more".
    """
    every = list(names)
    rest = len(every) - limit
    return ", ".join(every[:limit]) + (f" and {rest} more" if rest > 0 else "")
