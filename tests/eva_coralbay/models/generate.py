"""Writes the page of the models in the documents from the entries of the zoo.

Run it after an entry was added or changed, by `nox -s generate`. A test compares the page with what
it writes.
"""

import pathlib
import re
from collections.abc import Iterator, Sequence

from eva_coralbay import _messages
from eva_coralbay.models import weight_sources, zoo

DOCUMENT = pathlib.Path(__file__).parents[3] / "docs/models.md"
"""The document."""

_MARKER = re.compile(r"^<!-- What follows is written by .*-->\n", re.MULTILINE)
"""The comment below which all of the document is generated."""

_COLUMNS = ("model", "parameters", "input", "embedding", "license", "overlap")

_UNKNOWN = "not known"

_COMMIT = re.compile(r"/blob/(?P<short>[0-9a-f]{7})[0-9a-f]{33}/")
"""What leads from a repository to a file at a commit in an address."""


def main() -> None:
    """Writes the page."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text[: find_generated(text)] + render(), encoding="utf-8")


def find_generated(text: str) -> int:
    """Returns where in the document the generated part begins."""
    (marker,) = _MARKER.finditer(text)
    return marker.end()


def render() -> str:
    """Returns the generated part: a table of all models, and a section each."""
    rows = (_COLUMNS, ["---"] * len(_COLUMNS), *map(cells, zoo.ENTRIES.values()))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    sections = ("\n".join(_render_section(entry)) for entry in zoo.ENTRIES.values())
    return "\n".join(("", table, *sections, ""))


def cells(entry: zoo.Entry) -> Sequence[str]:
    """Returns the row of a model."""
    tasks = entry.pretraining_tasks
    parameters, dim = entry.parameters, entry.embedding_dim
    return [
        f"[`{entry.name}`](#{entry.name.replace('/', '')})",
        "by weights" if parameters is None else _messages.parameters(parameters),
        entry.preprocessing.summarize() if entry.preprocessing else _describe_input(entry),
        "by weights" if dim is None else str(dim),
        entry.license or "-",
        _UNKNOWN if tasks is None else f"{len(tasks)} tasks" if tasks else "none",
    ]


def _render_section(entry: zoo.Entry) -> Iterator[str]:
    """Yields the lines of a model's section."""
    yield f"\n## {entry.name}\n"
    yield f"{entry.title}.\n"
    yield "| fact | |\n|---|---|"
    facts = {
        "weights": _describe_weights(entry),
        "network": f"`{entry.network}`",
        "input": _describe_input(entry),
        "feature maps": _describe_maps(entry),
        "pre-trained on": entry.pretraining or _UNKNOWN,
        "overlap": _describe_overlap(entry),
        "license of the weights": entry.license or "-",
    }
    for name, fact in facts.items():
        yield f"| {name} | {fact} |"
    for name, source in entry.sources.items():
        yield f"| source: {name} | {_link(source)} |"


def _describe_weights(entry: zoo.Entry) -> str:
    if entry.weights is None:
        return "random"
    hub_id = weight_sources.parse_hub_id(entry.weights)
    checked = "SHA-256" if entry.sha256 else "MD5" if entry.md5 else None
    suffix = f", {checked} published" if checked else ""
    suffix += f", {entry.unpinned}" if entry.unpinned else ""
    if hub_id is None:
        return f"{_link(entry.weights)}{suffix}"
    return f"{' and '.join(f'`{file}`' for file in entry.files)}{suffix}"


def _describe_input(entry: zoo.Entry) -> str:
    """Returns all of the preprocessing."""
    preprocessing = entry.preprocessing
    if preprocessing is None:
        return "that of the task"
    offset, scale = preprocessing.hu_offset, preprocessing.hu_scale
    sign = "-" if offset > 0 else "+"
    parts = [preprocessing.summarize(), f"(HU {sign} {abs(offset):g}) / {scale:g}"]
    if preprocessing.window is not None:
        parts.append(f"windows of {' × '.join(map(str, preprocessing.window))} voxels")
    if preprocessing.multiple_of != (1, 1, 1):
        parts.append(f"sizes are multiples of {' × '.join(map(str, preprocessing.multiple_of))}")
    return ", ".join(parts)


def _describe_maps(entry: zoo.Entry) -> str:
    """Returns the channels of each map, with its stride in voxels."""
    if not entry.maps:
        return "by weights"
    return ", ".join(f"{map_.channels} at {_describe_stride(map_)}" for map_ in entry.maps)


def _describe_stride(map_: zoo.FeatureMap) -> str:
    strides = map_.stride if len(set(map_.stride)) > 1 else map_.stride[:1]
    return "1/" + " × 1/".join(map(str, strides))


def _describe_overlap(entry: zoo.Entry) -> str:
    tasks = entry.pretraining_tasks
    if tasks is None:
        return _UNKNOWN
    return ", ".join(f"`{task}`" for task in tasks) or "none"


def _link(source: str) -> str:
    """Makes the addresses in a text links, with short names."""
    return re.sub(r"https://[^\s,;)]+", lambda url: f"[{_shorten(url[0])}]({url[0]})", source)


def _shorten(url: str) -> str:
    name = url.removeprefix("https://").removeprefix("github.com/")
    return _COMMIT.sub(r" \g<short> ", name).replace("_", r"\_")


if __name__ == "__main__":
    main()
