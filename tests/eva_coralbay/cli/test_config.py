"""Tests `eva-coralbay config`."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
import yaml

from eva_coralbay.cli import config, main
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import catalog

_ROOT = pathlib.Path(__file__).parents[3]

_CONFIGS = _ROOT / "configs/vision/radiology"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("btcv", "online/segmentation/btcv.yaml"),
        ("luna25", "online/classification/luna25.yaml"),
        ("offline/luna25", "offline/classification/luna25.yaml"),
        ("offline/classification/luna25.yaml", "offline/classification/luna25.yaml"),
        ("quickstart", "pretraining/quickstart.yaml"),
    ],
)
def test_prints_the_path(name: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", name]) == 0
    assert capsys.readouterr().out == f"{_CONFIGS / path}\n"


def test_every_task_has_a_config_by_its_name() -> None:
    for task in catalog.TASKS.values():
        assert config.find_config(task.id).parent.name == task.kind


def test_lists_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert "online/segmentation/btcv" in names and "pretraining/coralbay" in names
    assert not any("_shared" in name for name in names)


@pytest.mark.parametrize("name", ["btvc", "segmentation/luna25", "online_segmentation", ""])
def test_an_unknown_name_is_an_error(name: str) -> None:
    with pytest.raises(EvaCoralbayError, match=f"no config '{name}': `eva-coralbay config` lists"):
        config.find_config(name)


def test_copies_what_a_config_takes(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["config", "offline/luna25", "--copy", str(tmp_path)]) == 0

    copy = pathlib.Path(capsys.readouterr().out.strip())
    assert copy == tmp_path / "offline/classification/luna25.yaml"
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.yaml")}
    assert files == {
        "offline/classification/luna25.yaml",
        "_shared/offline_classification.yaml",
        "_shared/nodule_crop.yaml",
    }
    content = yaml.safe_load(copy.read_text())
    for reference in (content["config"], content["data"]["init_args"]["transform"]):
        assert (copy.parent / reference).is_file()


def test_a_copy_overwrites_nothing(tmp_path: pathlib.Path) -> None:
    assert main.main(["config", "btcv", "--copy", str(tmp_path)]) == 0
    mine = tmp_path / "online/segmentation/btcv.yaml"
    mine.write_text("mine")

    assert main.main(["config", "btcv", "--copy", str(tmp_path)]) == 1

    assert mine.read_text() == "mine"


@pytest.mark.slow
def test_the_wheel_has_the_configs(tmp_path: pathlib.Path) -> None:
    """`eva fit` reads the config of an installed package, outside of the clone."""
    build = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(_ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*command: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", *command],
            env=env,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        return result.stdout

    path = run("eva_coralbay", "config", "btcv").strip()
    assert path == str(tmp_path / "site/eva_coralbay/configs/online/segmentation/btcv.yaml")
    printed = run("eva", "fit", "--config", path, "--print_config")
    # after eva's banner
    resolved = yaml.safe_load(printed[printed.index("trainer:") :])
    assert resolved["trainer"]["init_args"]["task"] == "btcv"
    assert resolved["model"]["class_path"] == "eva_coralbay.evaluation.SegmentationModule"
