"""Tests what a sweep says of its cells before it runs them."""

import pathlib
from typing import Any

import pytest

from eva_coralbay.cli import config, main
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import classifier, subsets
from eva_coralbay.leaderboard import sweep
from eva_coralbay.leaderboard.sweep import estimates
from eva_coralbay.models import weight_sources, work, zoo


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away the variables that configs read."""
    for name in ("IN_FEATURES", "MAX_STEPS", "PROTOCOL", "ROI_SIZE", "CHECKPOINT", "MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)


def _cells(name: str, *models: str) -> list[sweep.Cell]:
    path = config.find_config(name)
    return sweep.list_cells(sweep.plan_config(path, name=name, models=models))


def _estimate(name: str, model: str) -> sweep.Estimate:
    (cell,) = _cells(name, model)
    estimate = sweep.estimate(cell)
    assert estimate is not None
    return estimate


def test_all_models_need_nothing_but_a_config() -> None:
    cells = _cells("probe/openkbp", "all")

    assert [cell.model for cell in cells] == list(zoo.ENTRIES)
    widths = {cell.model: cell.environment["IN_FEATURES"] for cell in cells}
    assert widths["radiology/voco_h"] == "192" and widths["radiology/ct_fm"] == "48"
    assert {cell.task for cell in cells} == {"openkbp"}
    assert cells[0].folder.parts[:4] == ("logs", "sweep", "probe", "openkbp")
    assert all(sweep.estimate(cell) for cell in cells)


@pytest.mark.parametrize("name", ["btcv", "openkbp", "probe/luna25", "offline/luna25", "luna25"])
def test_every_kind_of_config_is_estimated(name: str) -> None:
    small, large = (_estimate(name, f"radiology/voco_{size}") for size in "bh")

    assert 10 < large.tflop / small.tflop < 20  # its four-fold width
    assert large.gib > small.gib > 0.2


def test_the_command_of_eva_is_that_of_the_config() -> None:
    commands = {
        name: _cells(name, "radiology/ct_fm")[0].arguments[0]
        for name in ("offline/luna25", "luna25", "probe/luna25", "btcv", "probe/openkbp")
    }

    assert commands.pop("offline/luna25") == "predict_fit"
    assert set(commands.values()) == {"fit"}


@pytest.mark.parametrize("name", ["pretraining/coralbay", "pretraining/quickstart"])
def test_a_pre_training_is_no_cell(name: str) -> None:
    with pytest.raises(EvaCoralbayError, match="is the config of a pre-training") as error:
        _cells(name, "radiology/coralbay")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variable", ["IN_FEATURES", "CHECKPOINT"])
def test_what_the_shell_sets_for_one_model_is_not_that_of_all(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "12")

    with pytest.raises(EvaCoralbayError, match=f"The shell sets {variable}"):
        _cells("probe/openkbp", "all")


def _cell_of_file(model: str, task: str, **env: Any) -> sweep.Cell:
    plan = {
        "output": "logs",
        "seeds": [0],
        "models": {model: {"env": env}},
        "tasks": {"a": {"config": str(config.find_config(task))}},
    }
    (cell,) = sweep.list_cells(sweep.Plan.model_validate(plan))
    return cell


def test_a_feature_size_that_weights_fix_is_no_other_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = _cell_of_file("radiology/voco_h", "btcv")
    assert cell.environment["IN_FEATURES"] == "192"
    assert sweep.estimate(cell) is not None

    # as if the zoo did not know it: what the folder was before
    monkeypatch.setattr(zoo, "ENTRIES", {})
    assert _cell_of_file("radiology/voco_h", "btcv").folder == cell.folder


def test_a_feature_size_that_is_free_is_that_of_the_config() -> None:
    cell = _cell_of_file("radiology/coralbay_random", "probe/openkbp")
    assert "IN_FEATURES" not in cell.environment
    assert sweep.estimate(cell) is None  # 12, not the 48 that were counted

    chosen = _cell_of_file("radiology/coralbay_random", "probe/openkbp", IN_FEATURES=48)
    assert chosen.folder != cell.folder
    assert sweep.estimate(chosen) is not None


def test_a_model_that_is_not_known() -> None:
    with pytest.raises(EvaCoralbayError, match="no model radiology/voco_x. Did you mean radiology"):
        _cells("btcv", "radiology/voco_x")


def test_probe_is_a_pass_over_the_windows_of_all_scans() -> None:
    # 300 x 375 x 375 mm at 3 mm, windows of 64 every 48 voxels; 47 + 52 scans
    windows = 2 * 3 * 3 * 99
    one = work.find("radiology/fmcib", "encode", (64, 64, 64)).tflop

    estimate = _estimate("probe/openkbp", "radiology/fmcib")

    fit = estimates.estimate_fit(7808, 47)
    assert estimate.tflop == pytest.approx(1.5 * one * windows + fit.tflop)
    assert estimate.hours(1.0) == pytest.approx(estimate.tflop / 3600)


def test_the_fit_of_a_probe_counts_what_the_probe_does() -> None:
    assert estimates.CURVE_SIZES == subsets.SIZES and estimates.CURVE_DRAWS == subsets.DRAWS
    shrinkages = {strength.shrinkage for strength in classifier.STRENGTHS}
    assert len(shrinkages) == estimates.NUM_SHRINKAGES

    # three cases: ten of one, ten of two with five decompositions for each, all three
    fit = estimates.estimate_fit(100, 3)
    assert fit.tflop == pytest.approx((10 + 10 * 11 + 16) * 100**3 / 3e12)
    assert fit.gib == pytest.approx(8 * 100**2 * 8 / 2**30)


def test_a_training_counts_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _estimate("btcv", "radiology/voco_b")
    step = work.find("radiology/voco_b", "train_decoder", (96, 96, 96)).tflop
    assert whole.tflop > 20_000 * 8 * step
    monkeypatch.setenv("MAX_STEPS", "10000")
    assert _estimate("btcv", "radiology/voco_b").tflop < 0.55 * whole.tflop

    monkeypatch.setenv("PROTOCOL", "finetuned")
    assert _estimate("btcv", "radiology/voco_b").gib > 1.5 * whole.gib


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ({"env": {"IN_FEATURES": 12}}, "probe/openkbp"),
        ({"args": {"model.init_args.encoder": {"class_path": "x.Net"}}}, "probe/openkbp"),
        ({"env": {"MODEL_NAME": "lab/other"}}, "probe/openkbp"),
        ({}, "phantom"),
    ],
)
def test_what_is_not_counted_has_no_estimate(model: dict[str, Any], task: str) -> None:
    plan = {
        "output": "logs",
        "seeds": [0],
        "models": {"radiology/coralbay_random": model},
        "tasks": {"a": {"config": str(config.find_config(task))}},
    }

    (cell,) = sweep.list_cells(sweep.Plan.model_validate(plan))

    assert sweep.estimate(cell) is None


def test_strange_values_of_variables_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_STEPS", "ROI_SIZE", "SPACING"):
        monkeypatch.setenv(name, "a: b: c")

    assert _estimate("btcv", "radiology/voco_b").tflop > 0


def test_variables_of_the_shared_config_belong_to_the_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (before,) = _cells("btcv", "radiology/ct_fm")
    monkeypatch.setenv("SW_OVERLAP", "0.75")

    (after,) = _cells("btcv", "radiology/ct_fm")

    assert after.environment["SW_OVERLAP"] == "0.75"
    assert after.folder != before.folder


def test_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_sources, "is_downloaded", lambda source: "VoCo_B" in source)

    remarks = {c.model: list(sweep.list_remarks(c)) for c in _cells("btcv", "all")}

    assert remarks["radiology/coralbay_random"] == []
    assert remarks["radiology/voco_b"] == ["pre-trained on its test scans"]
    assert remarks["radiology/suprem_segresnet"] == [
        "weights to download",
        "non-commercial",
        "no derivatives",
    ]


def test_the_input_of_the_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    of_task = _estimate("probe/openkbp", "radiology/spectre_local")
    monkeypatch.setenv("PROTOCOL", "probe-native")

    own = _estimate("probe/openkbp", "radiology/spectre_local")

    # half a millimeter within slices, not 3 mm
    assert own.tflop > 50 * of_task.tflop
    (cell,) = _cells("probe/openkbp", "slices/resnet50")
    assert "cannot run: its own input is not known" in sweep.list_remarks(cell)


@pytest.mark.parametrize(
    ("protocol", "config", "obstacle"),
    [
        ("probe", "btcv", "its config is not for the protocol probe"),
        ("frozen-offline", "btcv", "its config is not for the protocol frozen-offline"),
        ("frozen", "probe/btcv", "its config is not for the protocol frozen"),
        ("frozen", "probe/luna25", "its config is not for the protocol frozen"),
        ("frozen", "offline/luna25", "its config is not for the protocol frozen"),
        ("frozen-offline", "luna25", "its config is not for the protocol frozen-offline"),
        ("probe", "luna25", "its config is not for the protocol probe"),
        ("probe-native", "probe/luna25", "the protocol probe-native is for segmentations"),
        ("frozen-native", "luna25", "the protocol frozen-native is for segmentations"),
    ],
)
def test_the_protocol_must_be_one_of_the_config(
    monkeypatch: pytest.MonkeyPatch, protocol: str, config: str, obstacle: str
) -> None:
    monkeypatch.setenv("PROTOCOL", protocol)
    (cell,) = _cells(config, "radiology/voco_b")
    assert not sweep.can_run(cell)
    assert f"cannot run: {obstacle}" in sweep.list_remarks(cell)


def test_what_cannot_run_is_not_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PROTOCOL", "probe-native")
    monkeypatch.chdir(tmp_path)
    command = ["leaderboard", "sweep", "probe/openkbp", "--models", "slices/resnet50"]

    assert main.main([*command, "radiology/spectre_local"]) == 0
    printed = capsys.readouterr()
    assert "To do: 1 cells" in printed.err
    assert printed.out.count("MODEL_NAME=") == 1
    remarks = " ".join(printed.err.split())
    assert "Cannot run: its own input is not known - slices/resnet50 (openkbp)." in remarks
    assert "Pre-trained" not in remarks

    assert main.main([*command, "--local"]) == 0
    assert "Cannot run" in capsys.readouterr().out
    assert list(tmp_path.rglob("*.out")) == []


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    arguments = ["leaderboard", "sweep", "probe/openkbp", "--models"]

    assert main.main([*arguments, "all", "--tflops", "0.1"]) == 0

    printed = capsys.readouterr()
    commands = printed.out.splitlines()
    assert len(commands) == len(zoo.ENTRIES)
    assert all("MODEL_NAME=" in command and "IN_FEATURES=" in command for command in commands)
    assert "at 0.1 TFLOP/s" in printed.err and "To do: 18 cells" in printed.err
    for wrong in (["leaderboard", "sweep", "probe/openkbp"], [*arguments, "radiology/x"]):
        assert main.main(wrong) != 0
    assert "--models all" in capsys.readouterr().err
