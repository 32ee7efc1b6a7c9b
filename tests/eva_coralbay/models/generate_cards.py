"""Writes the cards of the models in the zoo.

Run it after an entry was added or changed, by `nox -s generate`. The tests compare the files with
what it writes. Cards of models that are not in the zoo are written by hand.
"""

import pathlib
import re
from typing import Any

import yaml

from eva_coralbay.models import weight_sources, zoo
from eva_coralbay.tasks import catalog

_ROOT = pathlib.Path(__file__).parents[3]
"""The top of the repository."""

_HEADER = "# Written by `nox -s generate` from src/eva_coralbay/models/zoo; change it there.\n"

_FILE = "model.safetensors"
"""The weights of a repository in the layout of a folder."""

_NOT_LOOKED_UP = "Whether its scans are among those of the pre-training was not looked up."

_URL = re.compile(r"https?://[^\s\"<>;,)]+")

_FOLDED = 70
"""Texts of more characters are folded."""


def main() -> None:
    """Writes all cards."""
    for entry in zoo.ENTRIES.values():
        card_path(entry).write_text(render_card(entry), encoding="utf-8")


def card_path(entry: zoo.Entry) -> pathlib.Path:
    """Returns the path of the card of an entry."""
    return _ROOT / "leaderboard/models" / f"{entry.name.replace('/', '__')}.yaml"


def render_card(entry: zoo.Entry) -> str:
    """Returns the card of an entry."""
    card = {
        "id": entry.name,
        "name": entry.title,
        "revision": None if entry.weights is None else _revision(entry.weights),
        "weights": entry.weights and {"url": _url(entry.weights), "sha256": entry.sha256},
        "license": entry.license,
        "parameters": entry.parameters,
        "pretraining": None if entry.scans is None else [_scans(scans) for scans in entry.scans],
        "overlap": _overlaps(entry),
        "sources": list(dict.fromkeys(_URL.findall(" ".join(entry.sources.values())))),
        "notes": [
            *entry.notes,
            *(f"More weights: {_url(file)}" for file in entry.files[1:]),
            *([] if entry.md5 is None else [f"The file's MD5: {entry.md5}."]),
            *([] if entry.unpinned is None else [f"{entry.unpinned}.".capitalize()]),
        ],
    }
    body = yaml.dump(card, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return _HEADER + body


def _scans(scans: zoo.Scans) -> dict[str, Any]:
    return {
        "name": scans.name,
        "scans": scans.number,
        "use": scans.use,
        "source": scans.source,
    }


def _overlaps(entry: zoo.Entry) -> dict[str, Any]:
    """Returns the overlap with each task; of random weights there is nothing to say."""
    if entry.scans == ():
        return {}
    found = {
        task: {"kind": overlap.kind, "note": overlap.note, "source": overlap.source}
        for overlap in entry.overlaps
        for task in overlap.tasks
    }
    unknown = {"kind": "unknown", "note": _NOT_LOOKED_UP, "source": None}
    return {task: found.get(task, unknown) for task in catalog.TASKS}


def _revision(source: str) -> str | None:
    hub_id = weight_sources.parse_hub_id(source)
    return hub_id and hub_id.revision


def _url(source: str) -> str:
    """Returns the address of weights."""
    hub_id = weight_sources.parse_hub_id(source)
    if hub_id is None:
        return source
    revision, file = hub_id.revision or "main", hub_id.file or _FILE
    return f"https://huggingface.co/{hub_id.repository}/resolve/{revision}/{file}"


class _Dumper(yaml.SafeDumper):
    """Writes long texts folded, indents lists, and repeats what occurs more than once."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = ">" if len(text) > _FOLDED else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


if __name__ == "__main__":
    main()
