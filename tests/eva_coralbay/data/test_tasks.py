"""Tests the registry of the tasks, its table, and the preparation of a task."""

import pathlib

import pytest
from rich import console as rich_console

from eva_coralbay.data import datasets, tasks, transforms
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import classification_layouts, layouts, task_layouts

_LABELED = ["case_0", "case_1", "case_2"]


@pytest.fixture
def own_data(tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns a data set in nnU-Net's layout."""
    layouts.write_nnunet(tmp_path / "own", _LABELED)
    return tmp_path / "own"


def test_all_tasks_of_the_leaderboard_are_there() -> None:
    assert sorted(tasks.TASKS) == [
        "amos22",
        "btcv",
        "cc_ccii",
        "flare22",
        "kits23",
        "lits17",
        "luna25",
        "msd_task03_liver",
        "msd_task06_lung",
        "msd_task07_pancreas",
        "msd_task08_hepatic_vessel",
        "msd_task09_spleen",
        "msd_task10_colon",
        "nodule_mnist_3d",
        "organ_mnist_3d",
        "totalsegmentator",
        "word",
    ]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_ranked_splits_have_a_test_split(task: str) -> None:
    splits = task_lib.read_splits(task)

    assert list(splits.schemes[splits.default]) == ["train", "val", "test"]


def test_only_what_can_be_downloaded_is_said_to_be() -> None:
    without_resources = {task for task, dataset in tasks.TASKS.items() if not dataset.resources}

    by_hand = {summary.task for summary in tasks.summarize() if summary.access != "download"}

    # the test labels of WORD can be downloaded, the rest cannot
    assert by_hand == without_resources | {"word"}


def test_summary() -> None:
    summaries = {summary.task: summary for summary in tasks.summarize()}

    assert summaries["lits17"] == tasks.Summary(
        task="lits17",
        kind="segmentation",
        cases={"train": 92, "val": 13, "test": 26},
        classes=2,
        license="CC-BY-NC-ND-4.0",
        restrictions=["non-commercial", "no derivatives"],
        access="account at codalab.org",
        state=None,
    )
    assert summaries["organ_mnist_3d"].classes == 11


@pytest.mark.parametrize("has_root", [True, False])
def test_table_fits_a_narrow_terminal(has_root: bool, tmp_path: pathlib.Path) -> None:
    lines = _print(tasks.summarize(str(tmp_path) if has_root else None), width=80)

    for task in tasks.TASKS:
        assert any(task in line for line in lines)
    assert any("4351/573/1239" in line for line in lines)
    assert any("no derivatives" in line for line in lines)
    assert any("on t" in line for line in lines) == has_root


def test_states(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", {task: tasks.TASKS[task] for task in ("btcv", "lits17")})
    task_layouts.write_btcv(tmp_path / "btcv")
    assert _states(tmp_path) == ["there, 0 of 30 prepared", "-"]

    tasks.prepare("btcv", str(tmp_path / "btcv"))
    assert _states(tmp_path) == ["prepared", "-"]

    next((tmp_path / "btcv").rglob("img0001.nii.gz")).unlink()
    assert _states(tmp_path) == ["incomplete", "-"]


def test_scans_that_are_prepared_elsewhere_are_seen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("btcv", "organ_mnist_3d")
    monkeypatch.setattr(tasks, "TASKS", {name: tasks.TASKS[name] for name in names})
    task_layouts.write_btcv(tmp_path / "data" / "btcv")
    (tmp_path / "data" / "organ_mnist_3d").mkdir()
    root, elsewhere = str(tmp_path / "data"), str(tmp_path / "elsewhere")
    tasks.prepare("btcv", f"{root}/btcv", prepared_root=elsewhere)

    states = [summary.state for summary in tasks.summarize(root, prepared_root=elsewhere)]

    assert states == ["prepared", "incomplete"]
    with pytest.raises(ValueError, match="only with the folder of the data: `--root`"):
        tasks.summarize(prepared_root=elsewhere)


def test_state_of_a_classification(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", {"luna25": tasks.TASKS["luna25"]})
    splits = classification_layouts.few_cases("luna25", monkeypatch, count=1)
    classification_layouts.write_luna25(
        tmp_path / "luna25", classification_layouts.all_cases(splits)
    )

    assert _states(tmp_path) == ["there"]


def test_prepares_everything_once(
    own_data: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks.prepare("nnunet", str(own_data))
    scans = {path: path.stat().st_mtime_ns for path in (own_data / "prepared").rglob("*.scan")}
    tasks.prepare("nnunet", str(own_data))

    assert len(scans) == len(_LABELED)
    assert {path: path.stat().st_mtime_ns for path in scans} == scans
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "The license of own: unknown"
    assert output[-1] == "All 3 scans of 'own' are prepared and intact."


def test_what_it_prepares_is_what_training_reads(
    own_data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The protocol's own transforms find every scan prepared."""
    tasks.prepare("nnunet", str(own_data), prepared_root=str(tmp_path / "elsewhere"))

    dataset = datasets.NnUNet(
        str(own_data),
        transforms=transforms.TrainTransform(),
        prepared_root=str(tmp_path / "elsewhere"),
    )
    dataset.setup()
    assert dataset.prepared_store.missing(dataset.sources()) == []
    assert not (own_data / "prepared").exists()


def test_damaged_scans_are_named_and_replaced(
    own_data: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks.prepare("nnunet", str(own_data))
    path = next((own_data / "prepared").rglob("case_1-*.scan"))
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))

    tasks.prepare("nnunet", str(own_data))

    assert path.read_bytes() == intact
    assert "Damaged, so prepared anew: case_1\n" in capsys.readouterr().out


def test_missing_files_are_an_error(own_data: pathlib.Path) -> None:
    (own_data / "labelsTr" / "case_1.nii.gz").unlink()

    with pytest.raises(DatasetError, match="Case 'case_1': image without label"):
        tasks.prepare("nnunet", str(own_data))

    assert not (own_data / "prepared").exists()


def test_license_comes_before_any_download(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DatasetError, match="Register at https://competitions.codalab.org"):
        tasks.prepare("lits17", str(tmp_path / "lits17"), download=True)

    output = capsys.readouterr().out
    assert output.startswith("The license of LiTS17: CC-BY-NC-ND-4.0 (https://")
    assert "non-commercial, no derivatives" in output


def test_license_is_printed_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = task_lib.Resource("ftp://nowhere/Task09_Spleen.tar", "Task09_Spleen.tar")
    monkeypatch.setattr(datasets.MSDSpleen, "resources", (nowhere,))

    with pytest.raises(DatasetError, match="neither an http nor an https"):
        tasks.prepare("msd_task09_spleen", str(tmp_path), download=True)

    assert capsys.readouterr().out.count("The license of") == 1


def test_classifications_need_no_preparation(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = classification_layouts.few_cases("luna25", monkeypatch, count=1)
    cases = classification_layouts.all_cases(splits)
    classification_layouts.write_luna25(tmp_path, cases)

    tasks.prepare("luna25", str(tmp_path))

    assert f"All {len(cases)} cases of 'luna25' are there" in capsys.readouterr().out
    with pytest.raises(ValueError, match="need no preparation: leave out `--prepared-root`"):
        tasks.prepare("luna25", str(tmp_path), prepared_root=str(tmp_path / "prepared"))


@pytest.mark.parametrize(
    ("task", "root", "download", "message"),
    [
        ("btvc", ".", False, "no task 'btvc': choose one of btcv, .*cc_ccii, nnunet, msd"),
        ("nnunet", ".", True, "own scans, which cannot be downloaded"),
        ("btcv", "nowhere", False, "There is no folder 'nowhere'"),
    ],
)
def test_wrong_arguments(task: str, root: str, download: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.prepare(task, root, download=download)


def _states(root: pathlib.Path) -> list[str | None]:
    return [summary.state for summary in tasks.summarize(str(root))]


def _print(summaries: list[tasks.Summary], *, width: int) -> list[str]:
    console = rich_console.Console(width=width)
    with console.capture() as capture:
        console.print(tasks.draw_table(summaries))
    return capture.get().splitlines()
