"""Wording that several messages share."""

from collections.abc import Iterable, Sequence

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""How text begins that a spreadsheet takes for a formula."""

_SHOWN = 10
"""The most names that a message lists."""


def list_names(names: Iterable[str], *, limit: int = _SHOWN, separator: str = ", ") -> str:
    """Lists names in their order, the first few of many.

    Args:
        names: The names.
        limit: The most names that are shown.
        separator: What stands between two.

    Returns:
        For example "a, b and 7 more".
    """
    every = list(names)
    rest = len(every) - limit
    return separator.join(every[:limit]) + (f" and {rest} more" if rest > 0 else "")


def list_lines(problems: Sequence[str], *, limit: int = _SHOWN) -> str:
    """Lists problems one a line, the first few of many.

    Args:
        problems: The problems.
        limit: The most problems that are shown.

    Returns:
        Indented lines, with a last one such as "and 7 more." where some are left out.
    """
    lines = [f"  - {problem}" for problem in problems[:limit]]
    rest = len(problems) - limit
    return "\n".join([*lines, f"  and {rest} more."] if rest > 0 else lines)


def minutes(number: float) -> str:
    """Says about how long something takes.

    Args:
        number: The minutes.

    Returns:
        For example "about 2.5 minutes", or "less than a minute".
    """
    return "less than a minute" if number < 1.0 else f"about {number:,.1f} minutes"


def parameters(number: int) -> str:
    """Says how many parameters a network has, in a unit in which small networks are not zero.

    Args:
        number: The number of parameters.

    Returns:
        For example "13.4 M", "18 k" or "120".
    """
    if number < 1_000:
        return str(number)
    return f"{number / 1e3:.0f} k" if number < 99_500 else f"{number / 1e6:,.1f} M"


def csv_text(value: object) -> object:
    """Makes a value of a CSV file one that neither a spreadsheet nor a terminal obeys.

    Args:
        value: The value; only text is changed.

    Returns:
        The value, text that begins like a formula with an apostrophe before it.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(_FORMULA_STARTS) else text


def printable(text: str) -> str:
    """Escapes the characters that end a line or that a terminal would obey.

    Args:
        text: What others have written.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> str:
    """Escapes the characters that a terminal would obey, but for the ends of lines.

    Args:
        text: A message in which others may have written something, such as the name of a file.
    """
    return "\n".join(map(printable, text.split("\n")))
