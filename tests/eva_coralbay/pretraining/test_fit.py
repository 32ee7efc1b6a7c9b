"""Tests of what a config builds, and of what is said of a wrong one."""

import pathlib

import pytest

from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import fit
from tests.eva_coralbay.pretraining import small_config, stores


def test_reads_the_views_of_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    small_config.set_environment(monkeypatch)
    assert fit.read_views(small_config.PATH) == stores.VIEWS


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--model.init_args.clip_nrom=1.0", "clip_nrom"),
        ("--trainer.init_args.max_stepz=1", "max_stepz"),
        ("--data.init_args.batch_size=many", "many"),
        ("--data.init_args.views.local_size=20", "local_size"),
        ("--modle.x=1", "modle"),
    ],
)
def test_says_in_a_line_what_is_wrong(
    override: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_config.set_environment(monkeypatch)
    with pytest.raises(ValueError, match="The config is wrong") as raised:
        fit.fit(["--config", small_config.PATH, override])
    assert named in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_a_config_that_is_not_there_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="nowhere.yaml"):
        fit.read_views(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize("command", [fit.fit, fit.dry_run])
def test_without_a_store_says_how_to_make_one(
    command, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_config.set_environment(
        monkeypatch, STORE=str(tmp_path / "store"), OUTPUT_ROOT=str(tmp_path / "run")
    )
    with pytest.raises(DatasetError, match="pretrain prepare"):
        command(["--config", small_config.PATH])


def test_a_dry_run_states_the_hours_and_leaves_the_folder_as_it_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = stores.write_store(tmp_path / "store", cases=2), tmp_path / "run"
    small_config.set_environment(
        monkeypatch, STORE=store, OUTPUT_ROOT=str(run), MASKING="{weight: 0.5, ratio: [0.2, 0.3]}",
        CLIP_BY="parameter", QUEUE_SIZE="8", MOMENTUM_BATCH="4", AUGMENTATION_WARMUP="0.5",
        MAX_GLOBAL_OVERLAP="0.8",
    )  # fmt: skip
    report = fit.dry_run(["--config", small_config.PATH], tflops=3.0)
    assert "hours at 3 TFLOP/s a device" in dict(report.rows)
    assert not run.exists()
