"""Left and right in the names of classes: which labels trade places in the mirror image of a body.

A mirrored left kidney is a right kidney. A mirrored liver is a liver, and what is called the left
ventricle of a heart is told from the right one by its wall, not by its side.
"""

import re
from collections.abc import Collection, Iterator, Sequence

_OTHER_SIDE = {"left": "right", "lt": "rt", "l": "r"}
_OTHER_SIDE |= {right: left for left, right in _OTHER_SIDE.items()}

_SIDE = re.compile(
    r"(?i:(?<!c)left|(?<![bfw])(?<!up)right)"
    r"|(?<![A-Za-z])(?:[lr]t?|[LR][Tt]?)(?![A-Za-z0-9])"
    r"|(?<![A-Za-z])[LR](?=[A-Z][a-z])|(?<=[a-z])[LR](?![A-Za-z0-9])"
)
"""What says by itself on which side of the body something is: `left_kidney`, `leftkidney`,
`KidneyRight`, `Lung_L`, `Kidney (R)`, `Lt kidney`, `LKidney`, `kidneyR`; `cleft` and `bright` say
nothing."""

_SHORT = re.compile(r"(?<![A-Za-z])(?:[LR](?=[A-Z]{1,3}(?![A-Za-z]))|(?:[lr]t?|[LR][Tt]?)(?=\d))")
"""What says it of a class that has a partner: `LUL` and `RUL`, `rib_L1` and `rib_R1`. Without one,
`LAD` is an artery and `L1` a vertebra."""

_LETTER = re.compile(r"(?<![A-Za-z])[lrLR](?=[A-Za-z])|(?<=[A-Za-z])[lrLR](?![A-Za-z])")
"""The same of a letter at the start or the end of a word: `lkidney` and `rkidney`, `KIDNEYL`."""

_HEART_OR_LIVER = re.compile(
    r"heart|cardiac|^(?!.*lateral).*ventric|atri(?:um|al)|auric|coronar|liver|hepat"
    r"|(?<![a-z])[lr](?:v|aa?|ad|ca|h[adv]|pv)(?![a-z])",
    re.IGNORECASE,
)
"""Organs with a left and a right part that are not mirror images: `right atrium`, `LV`. The lateral
ventricles are those of the brain."""

_ABBREVIATED = re.compile(r"(?<![A-Za-z])[lrLR](?i:v|aa?|ca|h[adv]|pv)(?![A-Za-z])")
"""Abbreviations of such parts; `LAD` stands for one artery, the left anterior descending one."""

_VERTEBRA = re.compile("vert|lumb", re.IGNORECASE)
"""What says that `L1` is a vertebra."""

_OTHER_LANGUAGE = re.compile(
    r"(?<![a-z])(?:links|rechts|(?:link|recht)e[rs]?|gauche|droite?|izquierd[ao]|derech[ao]"
    r"|sinistr[ao]|destr[ao]|sinister|dexter|sx|dx)(?![a-z])",
    re.IGNORECASE,
)
"""Left and right in German, French, Spanish, Italian and Latin."""


def find_pairs(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Finds the classes of which there is one on the left and one on the right.

    Args:
        labels: The names of the classes, such as "left_kidney" or "RightParotid".

    Returns:
        The two names of each pair, in the order of the labels. A class that is on one side only,
        such as the right middle lobe of the lung, is in none.
    """
    places = {name: place for place, name in enumerate(labels)}
    partners = {name: _find_partner(name, places) for name in labels}
    return tuple(
        (a, b)
        for a, b in partners.items()
        if b is not None and places[a] < places[b] and partners[b] == a
    )


def find_unpaired(labels: Sequence[str]) -> tuple[str, ...]:
    """Finds the classes that seem to be of one side of the body, but are in no pair.

    What they are called in a mirror image is not known: they have no partner, are parts of the
    heart or the liver, or their names are in another language.

    Args:
        labels: The names of the classes.

    Returns:
        Their names, such as "lung_middle_lobe_right" or "left ventricle".
    """
    paired = {name for pair in find_pairs(labels) for name in pair}
    # beside LUL and RUL, RML is of the right side
    has_short = any(_SHORT.search(name) and not _SIDE.search(name) for name in paired)
    return tuple(
        name
        for name in labels
        if name not in paired
        and (
            any(pattern.search(name) for pattern in (_SIDE, _ABBREVIATED, _OTHER_LANGUAGE))
            or (has_short and _SHORT.search(name) and not _VERTEBRA.search(name))
        )
    )


def _find_partner(name: str, labels: Collection[str]) -> str | None:
    """Returns what a class is called on the other side, if there is such a class."""
    if _HEART_OR_LIVER.search(name):
        return None
    return next((other for other in _mirror(name) if other != name and other in labels), None)


def _mirror(name: str) -> Iterator[str]:
    """Yields what a class may be called on the other side, the likeliest name first."""
    yield _SIDE.sub(_swap_side, name)
    for pattern in (_SIDE, _SHORT, _LETTER):
        for match in pattern.finditer(name):
            yield name[: match.start()] + _swap_side(match) + name[match.end() :]


def _swap_side(match: re.Match[str]) -> str:
    """Returns the other side in letters of the same case."""
    side = match[0]
    other = _OTHER_SIDE[side.lower()]
    if side.isupper():
        return other.upper()
    return other.capitalize() if side.istitle() else other
