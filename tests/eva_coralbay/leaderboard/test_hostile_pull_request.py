"""Tests that a pull request that would harm is refused by the name of its file, and at no cost.

Each is checked in a process of its own, within the bounds of the fuzz campaign: ten seconds, and
128 MiB more than the process has anyway.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml

from tests.eva_coralbay.leaderboard import result_files
from tests.fuzz import campaign, submissions

Files = dict[str, pathlib.Path]


def _write(request: pathlib.Path) -> Files:
    """Writes a pull request without fault, and returns its files by what they are."""
    entry = result_files.write(
        request / "results", model="lab/net", task="openkbp_oar", kind="demo", seed=0
    )
    card = request / "models/lab__net.yaml"
    card.parent.mkdir()
    card.write_text(yaml.safe_dump(submissions.CARD))
    numbers = request / "reported/lab__net.json"
    numbers.parent.mkdir()
    numbers.write_text(json.dumps(submissions.REPORTED))
    return {
        "record": entry.path,
        "table": entry.cases_path,
        "config": entry.config_path,
        "card": card,
        "numbers": numbers,
    }


def _text(name: str, content: str) -> Callable[[Files], pathlib.Path]:
    """Puts a text in the place of a file."""

    def change(files: Files) -> pathlib.Path:
        files[name].write_bytes(content.encode("utf-8", errors="surrogatepass"))
        return files[name]

    return change


def _link(name: str, target: str) -> Callable[[Files], pathlib.Path]:
    def change(files: Files) -> pathlib.Path:
        files[name].unlink()
        files[name].symlink_to(target)
        return files[name]

    return change


def _field(name: str, path: str, value: Any) -> Callable[[Files], pathlib.Path]:
    """Changes a field of a JSON or YAML file, by its dotted path."""

    def change(files: Files) -> pathlib.Path:
        tree = yaml.safe_load(files[name].read_text())
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
        files[name].write_text(json.dumps(tree))
        return files[name]

    return change


def _rows(edit: Callable[[list[str]], list[str]]) -> Callable[[Files], pathlib.Path]:
    """Changes the rows of the case table, and mends its hash."""

    def change(files: Files) -> pathlib.Path:
        header, *rows = files["table"].read_text().splitlines()
        rows = edit(rows)
        files["table"].write_text("\n".join([header, *rows]) + "\n")
        record = json.loads(files["record"].read_text())
        digest = hashlib.sha256(files["table"].read_bytes()).hexdigest()
        record["cases"] |= {"sha256": digest, "rows": len(rows)}
        files["record"].write_text(json.dumps(record))
        return files["table"]

    return change


def _config_text(text: str) -> Callable[[Files], pathlib.Path]:
    """Puts a text into the configuration that is YAML itself, and mends its hash."""

    def change(files: Files) -> pathlib.Path:
        tree = yaml.safe_load(files["config"].read_text())
        tree["data"]["init_args"]["dataset"]["text"] = text
        files["config"].write_text(yaml.safe_dump(tree))
        return files["record"]

    return change


def _extra(name: str) -> Callable[[Files], pathlib.Path]:
    def change(files: Files) -> pathlib.Path:
        path = files["record"].with_name(name)
        path.write_text("import os\n")
        return path

    return change


def _fifo(files: Files) -> pathlib.Path:
    files["table"].unlink()
    os.mkfifo(files["table"])
    return files["table"]


def _huge(files: Files) -> pathlib.Path:
    with files["record"].open("wb") as file:
        file.truncate(5 * 2**30)
    return files["record"]


KINDS: dict[str, Callable[[Files], pathlib.Path]] = {
    "nested aliases in a card": _text("card", submissions.BOMB),
    "nested aliases in a text of a config": _config_text(submissions.BOMB),
    "a config that runs something": _text("config", "!!python/object/apply:os.system [id]\n"),
    "deep JSON": _text("record", "[" * 100_000),
    "deep YAML": _text("card", "{a: " * 20_000),
    "a record of 5 GiB": _huge,
    "a device": _link("record", "/dev/zero"),
    "a file of the system": _link("card", "/etc/passwd"),
    "a pipe": _fifo,
    "half of a surrogate pair": _field("record", "dataset.name", "\ud800"),
    "a day that is none": _text("card", "id: 2024-02-30\n"),
    "a formula as a model": _field("record", "model.id", "=cmd|'/C calc'!A0"),
    "a script as a model": _field("record", "model.id", "<script>alert(1)</script>"),
    "an address that runs": _field("card", "weights.url", "javascript:alert(1)"),
    "a source that runs": _field("numbers", "0.source.url", "javascript:alert(1)"),
    "a table elsewhere": _field("record", "cases.file", "../../../../etc/passwd"),
    "a score that is no number": _field("record", "metrics.dice", float("nan")),
    "a better score than its table": _field("record", "metrics.dice", 0.99),
    "a Dice above 1": _rows(lambda rows: [rows[-1].replace(",0.", ",7."), *rows[:-1]]),
    "a case twice": _rows(lambda rows: [*rows, rows[-1]]),
    "hard cases left out": _rows(lambda rows: rows[len(rows) // 2 :]),
    "a program beside": _extra("run.py"),
    "a notebook beside": _extra("seed_0.ipynb"),
    "another table than hashed": _text("table", "case,class,metric,value\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused_by_the_name_of_the_file(name: str) -> None:
    def write(_: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
        return KINDS[name](_write(folder))

    def read(path: pathlib.Path) -> Any:
        request = next(parent for parent in path.parents if (parent / "results").is_dir())
        return submissions.read(request)

    kind = campaign.Kind("hostile", write, read)
    (found,) = campaign.run_numbers(kind, [0], seed=0)

    assert found.outcome == "refused", (found.outcome, found.detail)


def test_without_fault_it_is_drawn(tmp_path: pathlib.Path) -> None:
    _write(tmp_path)
    assert submissions.read(tmp_path)
