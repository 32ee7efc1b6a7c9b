"""Tests `eva-coralbay results`."""

import csv
import datetime
import io
import itertools
import json
import pathlib
from typing import Any

import pytest

from eva_coralbay.cli import main
from eva_coralbay.results import record

_GOLDEN = pathlib.Path(__file__).parents[1] / "results" / "data" / "record_v3.json"


def _write(
    root: pathlib.Path, run: str, metrics: dict[str, float | None], **changes: Any
) -> pathlib.Path:
    """Writes a record of the golden one's model, with other metrics and parts."""
    golden = record.Record.read(_GOLDEN)
    parts = {
        name: value
        if not isinstance(value, dict)
        else getattr(golden, name).model_copy(update=value)
        for name, value in changes.items()
    }
    result = golden.model_copy(update={"metrics": metrics, **parts})
    path = root / run / f"record_{result.split.part}_{result.checkpoint.selection}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result.write(path)
    return path


def _cells(text: str, name: str) -> list[str]:
    row = next(line for line in text.splitlines() if name in line)
    return [cell.strip() for cell in row.split("│")[1:-1]]


def test_seeds_are_averaged_and_nothing_else(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other models, parts and checkpoints are rows of their own, or do not count."""
    for seed, dice in enumerate((0.25, 0.75)):
        _write(tmp_path, f"run_{seed}", {"dice": dice, "dice_liver": dice}, seed=seed)
        best = {"selection": "best"}
        _write(tmp_path, f"run_{seed}", {"dice": 1.0}, seed=seed, checkpoint=best)
        _write(tmp_path, f"run_{seed}", {"dice": 0.5}, seed=seed, split={"part": "test"})
    _write(tmp_path, "other", {"dice": 0.125, "nsd": None}, model={"id": "lab/net"})
    (tmp_path / "run_1" / "cases_val.png").touch()

    assert main.main(["results", str(tmp_path)]) == 0

    text = capsys.readouterr().out
    assert text.startswith("task example@1; protocol frozen; ")
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert "0.500 ± 0.354" in next(row for row in rows if " val" in row and "radiology" in row)
    assert "0.500 ± 0.000" in next(row for row in rows if " test" in row)
    assert _cells(text, "lab/net")[-2:] == ["0.125", "-"]
    assert f"best and worst case: {tmp_path / 'run_1' / 'cases_val.png'}\n" in text


def test_runs_with_other_settings_or_weights_are_not_averaged(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first try with fewer steps, and another checkpoint under the same name."""
    task = {"config_sha256": "a" * 64}
    for seed in (0, 1):
        _write(tmp_path, f"long_{seed}", {"dice": 0.8}, seed=seed, task=task)
    _write(tmp_path, "short_2", {"dice": 0.2}, seed=2, task={"config_sha256": "b" * 64})

    assert main.main(["results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "0.800 ± 0.000" in text and "aaaaaaaa" in text
    assert _cells(text, "bbbbbbbb")[-1] == "0.200"

    _write(
        tmp_path, "other_0", {"dice": 0.4}, seed=0, task=task, model={"weights_sha256": "c" * 64}
    )
    assert main.main(["results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert _cells(text, "(cccccccc)")[-1] == "0.400"
    assert "0.800 ± 0.000" in text


def test_seeds_with_other_weights_are_averaged_and_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], log: list[str]
) -> None:
    """Random encoders, and those that were pre-trained once for each seed, are one model."""
    for seed in (0, 1):
        weights = {"weights_sha256": str(seed) * 64}
        for part in ("val", "test"):
            _write(
                tmp_path,
                f"run_{seed}",
                {"dice": seed},
                seed=seed,
                model=weights,
                split={"part": part},
            )
        _write(tmp_path, f"same_{seed}", {"dice": 0.5}, seed=seed, model={"id": "lab/net"})

    assert main.main(["results", str(tmp_path)]) == 0

    text = capsys.readouterr().out
    assert "0.500 ± 0.707" in text and "settings" not in text
    assert "00000000" in text and "11111111" in text
    (warning,) = [message for message in log if "different weights" in message]
    assert "radiology/coralbay has different" in warning
    assert "(seed 0: 00000000, seed 1: 11111111)" in warning


def test_equal_weights_are_no_news(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], log: list[str]
) -> None:
    for seed in (0, 1):
        _write(tmp_path, f"run_{seed}", {"dice": 0.5}, seed=seed)

    assert main.main(["results", str(tmp_path)]) == 0
    assert "weights" not in capsys.readouterr().out + "".join(log)

    assert main.main(["results", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["weights"]) == 2 and len(set(row["weights"])) == 1


def test_a_copy_of_a_run_counts_once(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, dice in (("run_0", 0.2), ("copy of run_0", 0.2), ("run_1", 0.6)):
        _write(tmp_path, run, {"dice": dice}, seed=int(run[-1]))

    assert main.main(["results", str(tmp_path)]) == 0
    assert "0.400 ± 0.283" in capsys.readouterr().out


def test_numbers_are_whole_in_a_narrow_terminal(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = {"dice": 0.1234, "nsd": 0.2345, "hd95": 123.4567, "dice_resampled": 0.3456}
    for seed in (0, 1):
        _write(tmp_path, f"run_{seed}", metrics, seed=seed)
    monkeypatch.setenv("COLUMNS", "40")
    assert main.main(["results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert all(f"{value:.3f} ± 0.000" in text for value in metrics.values())


def test_the_table_of_ordinary_tasks_fits_120_columns(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the seeds, parts and metrics of a probe; the other metrics are named, and in --csv."""
    few = [f"dice_resampled_at_{number}" for number in (1, 2, 5, 10, 25)]
    names = ["dice", "nsd", "hd95", "dice_resampled", *few, "dice_resampled_curve"]
    metrics: dict[str, float | None] = dict.fromkeys(names, 0.1)
    models = ("radiology/coralbay_random", "radiology/suprem_swin_unetr")
    for number, (model, task) in enumerate(itertools.product(models, ("btcv", "openkbp"))):
        for seed, part in itertools.product(range(5), ("val", "test")):
            run = f"{number}/run_{seed}"
            changes = {"model": {"id": model}, "task": {"id": task}, "split": {"part": part}}
            _write(tmp_path, run, metrics, seed=seed, **changes)

    assert main.main(["results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 120
    assert all(model in text for model in models) and "seeds 0, 1, 2, 3, 4" in text
    assert "0.100 ± 0.000" in text and all(name in text for name in names)

    assert main.main(["results", str(tmp_path), "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["metric"] for line in lines] == sorted(names) * 8


def test_classifications_have_a_table_of_their_own(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "run_0", {"dice": 0.25})
    accuracies = {"balanced_accuracy": 0.75, "auprc": 0.5}
    _write(tmp_path, "run_1", accuracies, task={"id": "luna25"})

    assert main.main(["results", str(tmp_path)]) == 0
    segmented, classified = capsys.readouterr().out.split("task luna25@1; ")
    assert _cells(segmented, "radiology/coralbay") == ["radiology/coralbay", "0.250"]
    assert _cells(classified, "radiology/coralbay") == ["radiology/coralbay", "0.750"]
    assert "--csv and --json have the values by class, and auprc.\n" in classified


def test_one_model_is_shown_by_class(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A metric with an underscore in its name is not a class."""
    metrics = {"dice": 0.5, "dice_liver": 0.6, "dice_resampled": 0.4, "dice_resampled_liver": 0.3}
    _write(tmp_path, "run_0", metrics)
    assert main.main(["results", str(tmp_path)]) == 0
    assert _cells(capsys.readouterr().out, "liver") == ["liver", "0.600", "0.300"]


def test_values_for_programs(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, dice in enumerate((0.1, 0.3)):
        _write(tmp_path, f"run_{seed}", {"dice": dice, "dice_liver": None}, seed=seed)

    assert main.main(["results", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["seeds"]) == ("radiology/coralbay", [0, 1])
    assert row["metrics"]["dice"]["mean"] == pytest.approx(0.2)
    assert row["metrics"]["dice_liver"] == {"mean": None, "deviation": None, "n_runs": 0}

    assert main.main(["results", str(tmp_path), "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["metric"], line["runs"]) for line in lines] == [
        ("dice", "2"),
        ("dice_liver", "0"),
    ]
    assert float(lines[0]["deviation"]) == pytest.approx(0.02**0.5)


def test_a_broken_record_is_named_and_the_others_are_shown(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "run_0", {"dice": 0.25})
    broken = tmp_path / "run_1" / "record_val_last.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert main.main(["results", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "0.250" in output.out
    assert f"left out: {broken} is not a JSON file" in output.err


def test_a_record_that_is_odd_does_not_spoil_the_table(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value of 309 digits took the whole width, and a name could move the cursor."""
    _write(tmp_path, "run_0", {"dice": 0.25})
    _write(tmp_path, "huge", {"dice": 1e308}, model={"id": "lab/huge"})
    _write(tmp_path, "red", {"dice": 0.5}, model={"id": "lab/\x1b[31mred"})
    broken = _write(tmp_path, "broken", {"dice": 0.5})
    broken.write_text(broken.read_text().replace('"seed": 0', '"seed": "\\u001b[2J"'))

    assert main.main(["results", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert max(map(len, output.out.splitlines())) < 200
    assert "0.250" in output.out and "1e+308" in output.out
    assert "lab/\\x1b[31mred" in output.out
    assert "\x1b" not in output.out + output.err
    assert len(output.err.splitlines()) == 1 and "seed" in output.err


def test_says_where_there_is_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["results", str(tmp_path)]) == 1
    assert "no record" in capsys.readouterr().err


def test_a_demonstration_is_not_averaged_with_a_measurement(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "run_0", {"dice": 0.25}, seed=0, kind="measured")
    _write(tmp_path, "run_1", {"dice": 0.75}, seed=1, kind="demo")

    assert main.main(["results", str(tmp_path), "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    means = {row["model"].endswith("(demo)"): row["metrics"]["dice"]["mean"] for row in rows}
    assert means == {False: 0.25, True: 0.75}


def test_other_files_of_the_same_cases_are_not_averaged(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, digit in enumerate("ab"):
        checksums = {"images": "1" * 64, "labels": digit * 64}
        data = {"checksums": checksums}
        _write(tmp_path, f"run_{seed}", {"dice": 0.25 + seed / 2}, seed=seed, dataset=data)

    assert main.main(["results", str(tmp_path), "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    assert {"labels aaaaaaaa" in json.dumps(row) for row in rows} == {True, False}


def test_the_newest_run_of_a_seed_counts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], log: list[str]
) -> None:
    days = [datetime.date(2026, 1, day) for day in (2, 1, 3)]
    for run, (seed, dice) in enumerate(((0, 0.25), (0, 0.5), (1, 0.75))):
        _write(tmp_path, f"run_{run}", {"dice": dice}, seed=seed, date=days[run])

    assert main.main(["results", str(tmp_path)]) == 0

    assert "0.500 ± 0.354" in capsys.readouterr().out
    assert any("several runs of the seed 0" in message for message in log)
