"""Tests what the command prints and returns."""

import json
import pathlib

import pytest

from eva_coralbay.cli import main
from eva_coralbay.data import phantom
from tests.eva_coralbay.data.datasets import layouts
from tests.eva_coralbay.pretraining import runs, small_config, stores

_KEEPS = "tests.eva_coralbay.models.test_backbone_check.Keeps"
_MIXES_BATCH = "tests.eva_coralbay.models.test_backbone_check.MixesBatch"


def test_check_backbone_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["check-backbone", _KEEPS, "--roi", "64", "--kwarg", "width=3"])

    output = capsys.readouterr().out
    assert exit_code == 0
    assert "embedding [B, E]" in output
    assert "[1, 1, 64, 64, 64] -> [1, 3]" in output
    assert "The backbone keeps the contract." in output


def test_check_backbone_fails(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["check-backbone", _MIXES_BATCH, "--roi", "64"])

    assert exit_code == 1
    assert "The backbone does not keep the contract." in capsys.readouterr().out


def test_check_backbone_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [_KEEPS, "--json", "--roi", "64", "--in-channels", "2", "--kwarg", "in_channels=2"]
    exit_code = main.main(["check-backbone", *arguments])

    report = json.loads(capsys.readouterr().out)
    assert exit_code == 0
    assert report["backbone"] == _KEEPS and report["holds"]
    assert report["findings"][0] == {"check": "builds", "holds": True, "seen": "6 parameters"}


def test_phantom(tmp_path: pathlib.Path) -> None:
    arguments = ["--cases", "2", "--val-cases", "1", "--seed", "3"]
    exit_code = main.main(["phantom", str(tmp_path / "data"), *arguments])

    assert exit_code == 0
    assert len(list((tmp_path / "data" / "imagesTr").iterdir())) == 2
    splits = json.loads((tmp_path / "data" / "splits_final.json").read_text())
    assert len(splits[0]["val"]) == 1


def test_tasks(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    exit_code = main.main(["tasks", "--root", str(tmp_path)])

    output = capsys.readouterr().out
    assert exit_code == 0
    assert "totalsegmentator" in output and "cc_ccii" in output


def test_tasks_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(["tasks", "--json"])

    listed = {entry["task"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert exit_code == 0
    assert len(listed) == 17
    assert listed["btcv"]["cases"] == {"train": 18, "val": 3, "test": 9}


def test_prepare_and_inspect(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    layouts.write_nnunet(tmp_path / "own", ["a", "b"])
    arguments = ["nnunet", "--root", str(tmp_path / "own")]

    prepared_root = str(tmp_path / "prepared")
    exit_codes = [
        main.main(["prepare", *arguments, "--workers", "1", "--prepared-root", prepared_root]),
        main.main(["inspect", *arguments, "--case", "b", "--out", str(tmp_path / "b.png")]),
    ]

    output = capsys.readouterr().out
    assert exit_codes == [0, 0]
    assert "All 2 scans of 'own' are prepared and intact." in output
    assert len(list((tmp_path / "prepared").rglob("*.scan"))) == 2
    assert "4 x 5 x 6" not in output and "6 x 5 x 4" in output  # (D, H, W), unlike in the file
    assert f"picture: {tmp_path / 'b.png'}" in output
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "nnunet", "--root", "nowhere"],
        ["inspect", "btvc", "--root", ".", "--case", "a"],
    ],
)
def test_errors_are_one_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main.main(arguments)

    captured = capsys.readouterr()
    assert exit_code == 1
    assert captured.out == ""
    assert captured.err.startswith("eva-coralbay: error: There is no ")


@pytest.mark.parametrize("subcommand", [subcommand.name for subcommand in main.SUBCOMMANDS])
def test_help_shows_examples(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main([subcommand, "--help"])

    assert exit_.value.code == 0
    assert f"eva-coralbay {subcommand}" in capsys.readouterr().out.partition("examples:")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["check-backbone"], "required: NAME_OR_CLASS"),
        (["prepare", "btcv"], "required: --root"),
        (["prepare", "btcv", "--root", "x", "--workers", "0"], "a whole number of at least 1"),
        (["check-backbone", "x", "--kwarg", "width"], "'width' is not KEY=VALUE"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)

    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture(name="pretrained", scope="module")
def _pretrained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Trains for two steps, and returns the folder with the store and the run."""
    folder = tmp_path_factory.mktemp("pretraining")
    store = stores.write_store(folder / "store", cases=2)
    with pytest.MonkeyPatch.context() as patch:
        runs.fit_heads_to_few_samples(patch)
        small_config.set_environment(patch, STORE=store, OUTPUT_ROOT=str(folder / "run"))
        assert main.main(["pretrain", "fit", "--config", small_config.PATH]) == 0
    return folder


def test_pretrain_fit_leaves_a_checkpoint_and_curves(pretrained: pathlib.Path) -> None:
    run = pretrained / "run"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step=2.ckpt"]
    assert "train/loss" in (run / "metrics.csv").read_text()
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_pretrain_export(pretrained: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, out = pretrained / "run/checkpoints/step=2.ckpt", pretrained / "encoder"
    exit_code = main.main(["pretrain", "export", str(checkpoint), "--out", str(out)])

    assert exit_code == 0
    assert capsys.readouterr().out == f"encoder: {out}\n"
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}


def test_pretrain_views_are_those_of_the_config(
    pretrained: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_config.set_environment(monkeypatch)
    arguments = [str(pretrained / "store"), "--case", "case_1", "--config", small_config.PATH]
    path = pretrained / "views.png"
    exit_code = main.main(["pretrain", "views", *arguments, "--out", str(path)])

    assert exit_code == 0
    assert capsys.readouterr().out == f"picture: {path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_pretrain_prepare_counts_all_that_is_excluded(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom.write_dataset(str(tmp_path / "scans"), cases=3, val_cases=1, shape=(24, 24, 24))
    arguments = [str(tmp_path / "scans"), "--out", str(tmp_path / "store"), "--workers", "1"]
    excluded = ["--exclude", "*phantom_000*", "--exclude", "*phantom_002*"]
    exit_code = main.main(
        ["pretrain", "prepare", *arguments, *excluded, "--spacing", "6", "6", "6"]
    )

    assert exit_code == 0
    content = json.loads((tmp_path / "store/manifest.json").read_text())
    (case,) = content["cases"]
    assert "phantom_001" in case["case"] and case["status"] == "prepared"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.init_args.clip_nrom=1.0"], "eva-coralbay: error: The config is wrong: "),
        (["--dry-run"], "eva-coralbay: error: 'nowhere/manifest.json': "),
        ([], "eva-coralbay: error: 'nowhere/manifest.json': "),
    ],
)
def test_pretrain_fit_with_wrong_input_is_one_message(
    arguments: list[str],
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_config.set_environment(monkeypatch, STORE="nowhere", OUTPUT_ROOT=str(tmp_path / "run"))
    exit_code = main.main(["pretrain", "fit", "--config", small_config.PATH, *arguments])

    assert exit_code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and errors[0].startswith(message)


@pytest.mark.parametrize(
    "subcommand", [subcommand.name for subcommand in main.PRETRAIN_SUBCOMMANDS]
)
def test_help_of_pretrain_shows_examples(
    subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main.main(["pretrain", subcommand, "--help"])

    assert exit_.value.code == 0
    examples = capsys.readouterr().out.partition("examples:")[2]
    assert f"eva-coralbay pretrain {subcommand}" in examples
