"""Adds a task as CONTRIBUTING.md says, step by step, to a copy of the repository."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.eva_coralbay.data.datasets import task_layouts

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_STEP = re.compile(
    r"`(?P<path>src/[\w/]+\.\w+)`:\n\n```(?P<language>\w+)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
"""A file of the guide: its path, and what is written to it."""

_CASES = [f"toy_{number:03d}" for number in range(1, 11)]


def _read_guide() -> str:
    text = (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split("\n## Add a task\n")[1].split("\n## ")[0]


def _copy_repository(folder: pathlib.Path) -> pathlib.Path:
    for name in ("src", "tests", "configs", "docs"):
        shutil.copytree(
            _ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    shutil.copy(_ROOT / "pyproject.toml", folder)
    return folder


def _list_files(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _write_files(guide: str, copy: pathlib.Path) -> None:
    """Writes the files of the guide, or adds to those that are there."""
    for step in _STEP.finditer(guide):
        path = copy / step["path"]
        text = path.read_text(encoding="utf-8") + "\n\n" if path.is_file() else ""
        path.write_text(text + step["text"], encoding="utf-8")


def test_the_catalog_takes_the_entry_of_the_guide(tmp_path: pathlib.Path) -> None:
    shutil.copytree(_ROOT / "src", tmp_path / "src")
    _write_files(_read_guide(), tmp_path)

    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    result = subprocess.run(
        [sys.executable, "-m", "eva_coralbay", "tasks", "--json"],
        env=environment,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stderr
    listed = {task["task"]: task for task in json.loads(result.stdout)}
    assert listed["toy"]["cases"] == {"train": 6, "val": 1, "test": 3}


@pytest.mark.slow
def test_two_files_and_the_split_make_a_task(tmp_path: pathlib.Path) -> None:
    guide, started = _read_guide(), time.perf_counter()
    copy = _copy_repository(tmp_path / "clone")
    before = _list_files(copy)
    (copy / "data").mkdir()

    _write_files(guide, copy)
    by_hand = {name for name, content in _list_files(copy).items() if before.get(name) != content}

    files = {
        case: (
            copy / f"data/toy/images/{case}.nii.gz",
            copy / f"data/toy/labels/{case}.nii.gz",
        )
        for case in _CASES
    }
    task_layouts.write_cases(files, num_labels=3)
    (script,) = re.findall(r"^```bash\n(.*?)^```", guide, flags=re.MULTILINE | re.DOTALL)
    for command, here in (
        ("nox -s generate", "python -m tests.eva_coralbay.tasks.generate"),
        ("eva-coralbay", "python -m eva_coralbay"),
        ("nox -s test --", "python -m pytest -q"),
    ):
        assert command in script
        script = script.replace(command, here)
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (copy / "toy_toy_001.png").is_file()
    assert by_hand == {
        "src/eva_coralbay/tasks/catalog/tumors.py",
        "src/eva_coralbay/data/datasets/toy.py",
        "src/eva_coralbay/tasks/splits/toy.json",
    }
    generated = {
        name
        for name, content in _list_files(copy).items()
        if before.get(name) != content and name.startswith(("src", "configs", "docs"))
    } - by_hand
    assert generated == {
        "configs/vision/radiology/online/segmentation/toy.yaml",
        "configs/vision/radiology/probe/toy.yaml",
        "docs/tasks.md",
        "src/eva_coralbay/tasks/released/settings_2.json",
    }
    print(f"A task in {time.perf_counter() - started:.0f} s: {sorted(by_hand)}")
