"""Edits of a folder of results."""

import hashlib
import json
import pathlib
from typing import Any

import yaml

from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, run_config


def edit(entry: results_folder.Entry, **changes: Any) -> None:
    """Changes fields of a record on the disk, by `part__field`."""
    content = json.loads(entry.path.read_text())
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field:
            content[part][field] = value
        else:
            content[part] = value
    entry.path.write_text(json.dumps(content))


def change_metric(entry: results_folder.Entry) -> None:
    edit(entry, metrics__dice=0.99)


def swap_config(entry: results_folder.Entry) -> None:
    config = yaml.safe_load(entry.config_path.read_text())
    config["trainer"]["init_args"]["max_steps"] = 10**6
    write_config(entry, config)


def edit_config(entry: results_folder.Entry, part: str, **changes: Any) -> None:
    """Changes arguments in a configuration, and its two hashes in the record."""
    config = yaml.safe_load(entry.config_path.read_text())
    config[part]["init_args"] |= changes
    write_config(entry, config)
    edit(entry, task__config_sha256=run_config.sha256(config))


def write_config(entry: results_folder.Entry, config: dict[str, Any]) -> None:
    content = yaml.safe_dump(config).encode()
    entry.config_path.write_bytes(content)
    edit(entry, config__sha256=hashlib.sha256(content).hexdigest())


def entry_path(root: pathlib.Path) -> pathlib.Path:
    return root / "lab__net" / "unversioned" / "btcv@1" / "frozen" / "seed_0.json"


def entry(root: pathlib.Path) -> results_folder.Entry:
    return results_folder.Entry(entry_path(root), record.Record.read(entry_path(root)))
