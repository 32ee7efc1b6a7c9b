"""Tests sweeps, with a stand-in for eva that leaves what a run leaves."""

import os
import pathlib
import shlex
import shutil
import signal
import sys
import threading
import time
from typing import Any

import psutil
import pytest
import yaml

from eva_coralbay.cli import main
from eva_coralbay.leaderboard import sweep
from eva_coralbay.results import record

_RECORD = pathlib.Path(__file__).parents[1] / "results" / "data" / "record_v2.json"
"""What is recorded."""

_EVA = """
import os, pathlib, shutil, sys, time

print("arguments:", sys.argv[1:])
state = pathlib.Path(os.environ["STATE"])
name = f"{os.environ['MODEL_NAME'].split('/')[1]}_{os.environ['SEED']}"
with open(state / "started", "a") as file:
    file.write(f"{name} {os.getpid()}\\n")
if (state / f"hang_{name}").exists():
    time.sleep(600)
if (state / f"fail_{name}").exists():
    (state / f"fail_{name}").unlink()
    sys.exit("out of luck")
if not (state / f"silent_{name}").exists():
    shutil.copytree(state / "run", pathlib.Path(os.environ["OUTPUT_ROOT"]) / "session")
"""
"""Notes that it was started, then hangs, fails once, leaves no record, or leaves one."""


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the stand-in for eva and what it is to leave."""
    folder = tmp_path / "state"
    (folder / "site" / "eva").mkdir(parents=True)
    (folder / "site" / "eva" / "__main__.py").write_text(_EVA)
    (folder / "site" / "eva" / "__init__.py").write_text("")
    (folder / "run" / "run_0").mkdir(parents=True)
    shutil.copy(_RECORD, folder / "run" / "run_0" / "record_val_last.json")
    (folder / "run" / "results.json").write_text("{}")
    return folder


@pytest.fixture
def plan(state: pathlib.Path, tmp_path: pathlib.Path) -> dict[str, Any]:
    """A sweep of two models on a task."""
    config = tmp_path / "config.yaml"
    config.write_text("steps: ${oc.env:MAX_STEPS, 10}\nworkers: ${oc.env:N_DATA_WORKERS, 1}\n")
    return {
        "output": str(tmp_path / "logs"),
        "seeds": [0, 1],
        "env": {"STATE": str(state), "PYTHONPATH": str(state / "site"), "ROI_SIZE": [64, 64, 64]},
        "models": {"lab/a": {}, "lab/b": {"env": {"ROI_SIZE": [96, 96, 96]}}},
        "tasks": {"btcv": {"config": str(config)}},
    }


def _list(plan: dict[str, Any], **kwargs: Any) -> list[sweep.Cell]:
    return sweep.list_cells(sweep.Plan.model_validate(plan), **kwargs)


def _run(plan: dict[str, Any], tmp_path: pathlib.Path, **kwargs: Any) -> list[sweep.Outcome]:
    pytest.importorskip("submitit")
    return sweep.run(_list(plan), "local", folder=tmp_path / "jobs", at_once=4, **kwargs)


def _started(state: pathlib.Path) -> list[str]:
    path = state / "started"
    return sorted(path.read_text().split()[::2]) if path.exists() else []


def test_cells(plan: dict[str, Any]) -> None:
    plan["models"]["lab/b"]["args"] = {"model.init_args.encoder": {"class_path": "x.Net"}}

    cells = _list(plan)

    assert [(cell.model, cell.seed) for cell in cells] == [
        ("lab/a", 0),
        ("lab/b", 0),
        ("lab/a", 1),
        ("lab/b", 1),
    ]
    assert cells[0].environment["ROI_SIZE"] == "[64, 64, 64]"
    assert cells[1].environment["ROI_SIZE"] == "[96, 96, 96]"
    assert cells[1].environment["MODEL_NAME"] == "lab/b"
    assert cells[3].environment["SEED"] == "1" and cells[3].environment["N_RUNS"] == "1"
    assert cells[1].arguments == [
        "fit",
        "--config",
        plan["tasks"]["btcv"]["config"],
        "--trainer.init_args.model=lab/b",
        '--model.init_args.encoder={"class_path": "x.Net"}',
    ]
    assert len({cell.folder for cell in cells}) == 4


def test_the_printed_command_is_for_a_shell(plan: dict[str, Any]) -> None:
    plan["env"]["NOTE"] = "it's; $HOME"
    cell, *_ = _list(plan)

    words = shlex.split(cell.command)

    assert words[: len(cell.environment)] == [f"{k}={v}" for k, v in cell.environment.items()]
    assert words[len(cell.environment) :] == ["eva", *cell.arguments]


def test_some_of_the_cells(plan: dict[str, Any]) -> None:
    cells = _list(plan, models=["lab/b"], tasks=["btcv"], seeds=[7])

    assert [(cell.model, cell.task, cell.seed) for cell in cells] == [("lab/b", "btcv", 7)]
    with pytest.raises(ValueError, match="no model lab/c in the sweep: it has lab/a, lab/b"):
        _list(plan, models=["lab/c"])


def test_other_settings_have_another_folder(
    plan: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder() -> pathlib.Path:
        return _list(plan)[0].folder

    before = folder()
    monkeypatch.setenv("UNRELATED", "1")
    monkeypatch.setenv("N_DATA_WORKERS", "8")
    assert folder() == before

    monkeypatch.setenv("MAX_STEPS", "20")
    assert _list(plan)[0].environment["MAX_STEPS"] == "20"
    folders = [before, folder()]
    plan["models"]["lab/a"]["env"] = {"CHECKPOINT": str(tmp_path / "weights")}
    folders.append(folder())
    (tmp_path / "weights").write_bytes(b"1")
    folders.append(folder())
    (tmp_path / "weights").write_bytes(b"2")
    folders.append(folder())
    pathlib.Path(plan["tasks"]["btcv"]["config"]).write_text("steps: 30\n")
    folders.append(folder())
    assert len(set(folders)) == 6


def test_what_concerns_the_machine_is_not_in_the_folder(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "DOWNLOAD_DATA": "true",
        "LOGGERS": "wandb",
        "NUM_DEVICES": "2",
        "PREDICT_BATCH_SIZE": "4",
        "PREPARED": "false",
        "SW_BATCH_SIZE": "1",
    }
    for name in values:
        monkeypatch.delenv(name, raising=False)
    config = pathlib.Path(plan["tasks"]["btcv"]["config"])
    config.with_name("shared.yaml").write_text(
        "".join(f"{name.lower()}: ${{oc.env:{name}, null}}\n" for name in values)
    )
    config.write_text("config: shared.yaml\n")
    before, *_ = _list(plan)

    for name, value in values.items():
        monkeypatch.setenv(name, value)
    after, *_ = _list(plan)

    assert after.folder == before.folder
    assert values.items() <= after.environment.items()


def test_a_dry_run_of_the_shell_is_not_one_of_the_sweep(
    plan: dict[str, Any],
    state: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in = state / "site" / "eva" / "__main__.py"
    stand_in.write_text(f"import os\nassert 'DRY_RUN' not in os.environ\n{stand_in.read_text()}")
    plan["models"], plan["seeds"] = {"lab/a": {}}, [0]
    config = pathlib.Path(plan["tasks"]["btcv"]["config"])
    config.write_text("trainer: {init_args: {dry_run: '${oc.env:DRY_RUN, false}'}}\n")
    (before,) = _list(plan)
    monkeypatch.setenv("DRY_RUN", "true")

    (cell,) = _list(plan)
    (outcome,) = _run(plan, tmp_path)

    assert cell == before and "DRY_RUN" not in cell.command
    assert outcome.state == "done"


def test_embeddings_are_computed_first_where_the_config_needs_them(
    plan: dict[str, Any], state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """An attempt that failed leaves embeddings that eva would refuse."""
    stand_in = state / "site" / "eva" / "__main__.py"
    embeddings = "pathlib.Path(os.environ['EMBEDDINGS_ROOT'], 'net').mkdir(parents=True)"
    stand_in.write_text(f"import os, pathlib\n{embeddings}\n{stand_in.read_text()}")
    plan["models"] = {"lab/a": {}}
    pathlib.Path(plan["tasks"]["btcv"]["config"]).write_text(
        "data: {init_args: {embeddings_root: '${oc.env:EMBEDDINGS_ROOT, data/embeddings}/net'}}\n"
    )
    (state / "fail_a_0").touch()

    cells = _list(plan)
    outcomes = _run(plan, tmp_path, retries=1)

    assert {cell.arguments[0] for cell in cells} == {"predict_fit"}
    assert len({cell.environment["EMBEDDINGS_ROOT"] for cell in cells}) == 2
    assert [outcome.state for outcome in outcomes] == ["done", "done"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [0]}, "sedes"),
        ({"env": {"DRY_RUN": True}}, "DRY_RUN is not for a sweep"),
        ({"models": {"../x": {}}}, "is not a name"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"tasks": {"btcv": {}}}, "tasks.btcv.config"),
        ({"env": {"A;touch x;B": 1}}, "'A;touch x;B' is not a variable"),
        ({"models": {"lab/a": {"env": {"": 1}}}}, "'' is not a variable"),
        ({"args": {"lr": "1\0"}}, "a text has the character NUL"),
    ],
)
def test_a_file_that_is_no_sweep(
    plan: dict[str, Any], tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**plan, **change}))

    with pytest.raises(ValueError, match=message):
        sweep.read(path)


def test_a_list_is_no_sweep(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("- btcv\n")

    with pytest.raises(ValueError, match="a sweep needs `models` and `tasks`; see docs/submit.md"):
        sweep.read(path)


def test_a_config_that_is_not_there(plan: dict[str, Any]) -> None:
    plan["tasks"]["btcv"]["config"] = "nowhere.yaml"

    with pytest.raises(ValueError, match="nowhere.yaml cannot be read"):
        _list(plan)


def test_finished_cells_are_skipped(
    plan: dict[str, Any], state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = _run(plan, tmp_path)
    assert [outcome.state for outcome in first] == ["done"] * 4
    assert first[0].result == record.Record.read(_RECORD)

    # of this cell the session did not come to its end
    next(first[1].cell.folder.rglob("results.json")).unlink()
    next(first[1].cell.folder.glob("session")).rename(first[1].cell.folder / "interrupted")
    second = _run(plan, tmp_path)

    assert [outcome.state for outcome in second] == ["skipped", "done", "skipped", "skipped"]
    assert _started(state) == ["a_0", "a_1", "b_0", "b_0", "b_1"]


def test_a_failed_cell_is_tried_again(
    plan: dict[str, Any], state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    plan["seeds"] = [0]
    (state / "fail_a_0").touch()
    lines: list[str] = []

    outcomes = _run(plan, tmp_path, retries=1, report=lines.append)

    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert _started(state) == ["a_0", "a_0", "b_0"]
    assert lines[-1].startswith("[2/2] done")


def test_a_failed_cell_is_reported_with_its_log(
    plan: dict[str, Any], state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    plan["seeds"] = [0]
    (state / "fail_a_0").touch()
    (state / "silent_b_0").touch()

    failed, silent = _run(plan, tmp_path)

    assert (failed.state, silent.state) == ("failed", "failed")
    again, _ = sweep.look_up(_list(plan))
    assert (again.state, again.log) == ("failed", failed.log)
    text = sweep.describe_failure(failed)
    assert "lab/a on btcv, seed 0" in text and str(failed.log) in text
    assert "| out of luck" in text
    assert "--trainer.init_args.model=lab/a" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_goes_on(
    plan: dict[str, Any], state: pathlib.Path, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    pytest.importorskip("submitit")
    plan["models"] = {"lab/a": {}}
    (state / "hang_a_1").touch()

    def interrupt() -> None:
        while "a_1" not in _started(state):
            time.sleep(0.1)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    interrupted = sweep.run(_list(plan), "local", folder=tmp_path / "jobs", at_once=1)

    assert [outcome.state for outcome in interrupted] == ["done", "interrupted"]
    process = int((state / "started").read_text().split()[-1])
    deadline = time.monotonic() + 20
    while psutil.pid_exists(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(process)

    (state / "hang_a_1").unlink()
    assert [outcome.state for outcome in _run(plan, tmp_path)] == ["skipped", "done"]


def test_what_is_done_is_seen_without_running(
    plan: dict[str, Any], state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A cell that failed is told until it is done; one that only began is to do."""
    plan["models"], plan["seeds"] = {"lab/a": {}}, [0, 1]
    assert [outcome.state for outcome in sweep.look_up(_list(plan))] == ["to do"] * 2
    assert not (tmp_path / "logs").exists()

    (state / "fail_a_1").touch()
    _run(plan, tmp_path)
    plan["seeds"] = [0, 1, 2]
    _list(plan)[2].folder.mkdir(parents=True)
    outcomes = sweep.look_up(_list(plan))
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "to do"]
    assert outcomes[0].result == record.Record.read(_RECORD)

    _run(plan, tmp_path)
    assert [outcome.state for outcome in sweep.look_up(_list(plan))] == ["done"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "-1"], "argument --jobs: '-1' is not a whole number of at least 1"),
        (["--jobs", "0"], "argument --jobs: '0' is not a whole number of at least 1"),
        (["--seeds", "0", "-1"], "argument --seeds: '-1' is not a whole number of at least 0"),
        (["--retries", "-1"], "argument --retries: '-1' is not a whole number of at least 0"),
        (["--tflops", "0"], "argument --tflops: '0' is not a number above 0"),
        (["--tflops", "nan"], "argument --tflops: 'nan' is not a number above 0"),
        (["--jobs", "two"], "argument --jobs: 'two' is not a whole number of at least 1"),
    ],
)
def test_numbers_that_cannot_be(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main.main(["leaderboard", "sweep", "sweep.yaml", "--local", *options])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_without_submitit(
    plan: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)

    with pytest.raises(ValueError, match=r"pip install 'eva-coralbay\[sweep\]'"):
        sweep.run(_list(plan), "local", folder=tmp_path, at_once=1)


def test_without_slurm(
    plan: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ValueError, match="submitit cannot use slurm"):
        sweep.run(_list(plan), "slurm", folder=tmp_path, at_once=1)


def test_an_unknown_parameter(plan: dict[str, Any], tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="submitit cannot use local.*partitoin"):
        _run(plan, tmp_path, parameters={"slurm_partitoin": "gpu"})


def test_command(
    plan: dict[str, Any],
    state: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("submitit")
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    arguments = ["leaderboard", "sweep", str(path), "--seeds", "0"]
    (state / "silent_b_0").touch()

    assert main.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [cell.command for cell in _list(plan, seeds=[0])]
    assert printed.err.count("to do") == 2
    assert main.main([*arguments, "--local"]) == 1
    ran = capsys.readouterr().out
    assert "failed: lab/b on btcv, seed 0" in ran
    assert main.main([*arguments, "--print"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [cell.command for cell in _list(plan, seeds=[0])]
    assert [printed.err.count(state) for state in ("done", "failed", "to do")] == [1, 1, 0]
    (state / "silent_b_0").unlink()
    assert main.main([*arguments, "--local"]) == 0


@pytest.mark.parametrize("name", ["openkbp", "openkbp_frozen"])
def test_the_measured_results_are_of_a_sweep(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pathlib.Path(__file__).parents[3]
    monkeypatch.chdir(root)

    cells = sweep.list_cells(sweep.read(root / "leaderboard" / f"{name}.yaml"))

    models = {path.stem for path in (root / "leaderboard/models").glob("baseline__*.yaml")}
    assert {cell.model.replace("/", "__") for cell in cells} >= models
