"""Malformed sweeps."""

import json
import pathlib
import shlex
from typing import Any

import numpy as np

from eva_coralbay.leaderboard.sweep import plan
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_VALUES: Any = (
    None, True, 0, 1, -1, 2**70, 1.5, float("nan"), float("inf"), "", "a", "a b", "$(touch x)",
    "a;b", "a\nb", "a\x00b", "\ud800", "[/b]", "../../x", "/etc/passwd", "a" * 5000, [], [[]], {},
    {"a": 1}, [None], [0, 0], "=", "A=B", "btcv",
)  # fmt: skip
"""What may stand in any place."""


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    config = folder / "task.yaml"
    config.write_text("trainer: {init_args: {task: '${oc.env:TASK, mine}'}}\n")
    sweep: Any = {
        "output": "logs",
        "seeds": [0, 1],
        "env": {"IN_FEATURES": 12, "ROI_SIZE": [64, 64, 64]},
        "models": {
            "lab/net": {},
            "lab/other": {"env": {"SEED": 3}, "args": {"model.init_args.lr": 0.1}},
        },
        "tasks": {"mine": {"config": str(config)}},
    }
    for _ in range(int(random.integers(1, 3))):
        sweep = mutations.replace_node(random, sweep, _VALUES)
    content = json.dumps(sweep).encode()
    if random.random() < 0.15:
        content = mutations.damage(random, content)
    (folder / "sweep.yaml").write_bytes(content)
    return folder / "sweep.yaml"


def _read(path: pathlib.Path) -> list[plan.Cell]:
    return plan.list_cells(plan.read(path))


def _check(path: pathlib.Path, cells: list[plan.Cell]) -> str | None:
    folders = [cell.folder for cell in cells]
    if len(set(folders)) < len(folders):
        return "two cells share a folder"
    for cell in cells:
        words = [f"{name}={value}" for name, value in cell.environment.items()]
        if not all(name.isidentifier() and name.isascii() for name in cell.environment):
            return f"variables that a shell does not take: {list(cell.environment)}"
        if "\0" in cell.command or shlex.split(cell.command) != [*words, "eva", *cell.arguments]:
            return "a command that a shell takes for another one"
    return None


SWEEPS = Kind("sweeps", _write, _read, _check)
