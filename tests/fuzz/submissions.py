"""Hostile pull requests: a results folder in which one file was changed, and its hash mended.

What `validate` accepts, `build` must be able to draw.
"""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import yaml

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.leaderboard import validation
from eva_coralbay.leaderboard.page import build
from tests.eva_coralbay.leaderboard import result_files
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_VALUES: Any = (
    None, True, 0, 1, -1, 2**70, 0.5, 1.5, -2.0, 1e300, float("nan"), float("inf"), "", "a", "0.5",
    "<script>alert(1)</script>", "=1+1", "[/b]", "a\nb", "a\x00b", "\ud800", "\u202e", "../../x",
    "/etc/passwd", "https://x/y", "javascript:alert(1)", "2024-02-30", "2024-02-28", "a" * 5000,
    [], [[]], {}, {"a": 1}, [None], [1.0, 2.0], "frozen", "demo", "btcv", "lab__net/v2", "0" * 64,
)  # fmt: skip
"""What may stand in any place."""

CARD: Any = {
    "id": "lab/net",
    "name": "Net",
    "revision": None,
    "weights": {"url": "https://example.org/net.pt", "sha256": None},
    "license": "Apache-2.0",
    "parameters": 6,
    "pretraining": [
        {"name": "Set", "scans": 3, "use": "unlabeled", "source": "https://example.org/set"}
    ],
    "overlap": {"btcv": {"kind": "none", "note": "Said so.", "source": "https://example.org/set"}},
    "sources": ["https://example.org/net"],
    "notes": ["A note."],
}
"""A card without fault."""

REPORTED: Any = [
    {
        "kind": "reported",
        "model": "lab/net",
        "task": "btcv",
        "protocol": "theirs",
        "metric": "Dice",
        "value": 0.8,
        "spread": None,
        "n": 6,
        "split": "theirs",
        "source": {"title": "T", "url": "https://example.org/paper", "where": "Table 1"},
        "note": None,
    }
]
"""A file of reported numbers without fault."""

_ALIASES = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
BOMB = f"a0: &a0 [x]\n{_ALIASES}"
"""Nested aliases of YAML, which are small until they are written out."""


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    request = folder / "pull_request"
    root = request / "results"
    entries = [
        result_files.write(root, model=model, task="openkbp_oar", kind="demo", seed=0)
        for model in ("lab/net", "lab/other")
    ]
    for name, content in (("models/lab__net.yaml", CARD), ("reported/lab__net.json", REPORTED)):
        path = request / name
        path.parent.mkdir()
        path.write_text(json.dumps(content))
    entry = entries[0]
    paths = (
        entry.path, entry.path, entry.cases_path, entry.config_path,
        request / "models/lab__net.yaml", request / "reported/lab__net.json",
    )  # fmt: skip
    path = mutations.choose(random, paths)
    if random.random() < 0.05:
        _replace_by_link(random, path)
        return request
    path.write_bytes(_change(random, path))
    if path in (entry.cases_path, entry.config_path) and random.random() < 0.8:
        _mend_hash(entry.path, path)
    return request


def _change(random: np.random.Generator, path: pathlib.Path) -> bytes:
    content = path.read_bytes()
    kind = random.random()
    if kind < 0.15:
        return mutations.damage(random, content)
    if kind < 0.2 and path.suffix == ".yaml":
        return BOMB.encode()
    if kind < 0.25:
        return mutations.choose(random, (b"[", b'{"a":', b"- ")) * int(random.integers(1, 40_000))
    if path.suffix == ".csv":
        return _change_cells(random, content)
    tree = yaml.safe_load(content)
    for _ in range(int(random.integers(1, 3))):
        if kind < 0.6:
            tree = mutations.replace_node(random, tree, _VALUES)
        else:
            tree = _replace_leaf(random, tree)
    text = json.dumps(tree, ensure_ascii=bool(random.integers(2)))
    return text.encode("utf-8", errors="surrogatepass")


def _replace_leaf(random: np.random.Generator, tree: Any) -> Any:
    """Returns a tree in which one value is another one of its type."""
    if isinstance(tree, dict) and tree:
        key = mutations.choose(random, list(tree))
        return {**tree, key: _replace_leaf(random, tree[key])}
    if isinstance(tree, list) and tree:
        index = int(random.integers(len(tree)))
        return [*tree[:index], _replace_leaf(random, tree[index]), *tree[index + 1 :]]
    return mutations.choose(random, [x for x in _VALUES if type(x) is type(tree)] or _VALUES)


def _change_cells(random: np.random.Generator, content: bytes) -> bytes:
    lines = [line.split(b",") for line in content.splitlines()]
    for _ in range(int(random.integers(1, 4))):
        line = mutations.choose(random, lines)
        value = str(mutations.choose(random, _VALUES)).encode("utf-8", errors="surrogatepass")
        line[int(random.integers(len(line)))] = value
    if random.random() < 0.3:
        lines.append(mutations.choose(random, lines))
    return b"\n".join(b",".join(line) for line in lines) + b"\n"


def _replace_by_link(random: np.random.Generator, path: pathlib.Path) -> None:
    path.unlink()
    path.symlink_to(mutations.choose(random, ("/dev/zero", "/etc/passwd", "nowhere", path.name)))


def _mend_hash(record: pathlib.Path, path: pathlib.Path) -> None:
    content = json.loads(record.read_bytes())
    part = content["cases" if path.suffix == ".csv" else "config"]
    part["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".csv":
        part["rows"] = max(0, len(path.read_bytes().splitlines()) - 1)
    record.write_text(json.dumps(content))


def read(request: pathlib.Path) -> list[str]:
    """Does what CI does with a pull request, and returns the pages."""
    root = request / "results"
    faults = validation.validate(root)
    json.dumps([fault.as_dict() for fault in faults]).encode()
    errors = [str(fault) for fault in faults if not fault.is_warning]
    if errors:
        raise EvaCoralbayError("\n".join(errors[:20]))
    site = request / "site"
    build.build(root, request / "models", request / "reported", site)
    return [path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))]


def _check(request: pathlib.Path, pages: list[str]) -> str | None:
    if any("<script>alert" in page or 'href="javascript:' in page for page in pages):
        return "a page runs what the pull request brought"
    return None


SUBMISSIONS = Kind("submissions", _write, read, _check)
