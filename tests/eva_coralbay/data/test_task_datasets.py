"""Tests the data set of a task by its name: its preparation and what is on the disk."""

import dataclasses
import pathlib

import pytest

from eva_coralbay.data import datasets, task_datasets, transforms
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog
from tests.eva_coralbay.data.datasets import classification_layouts, layouts, task_layouts

_LABELED = ["case_0", "case_1", "case_2"]


@pytest.fixture
def own_data(tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns a data set in nnU-Net's layout."""
    layouts.write_nnunet(tmp_path / "own", _LABELED)
    return tmp_path / "own"


def test_states(tmp_path: pathlib.Path) -> None:
    task_layouts.write_btcv(tmp_path / "btcv")
    assert _state("btcv", tmp_path) == "there, 0 of 30 prepared"

    task_datasets.prepare("btcv", str(tmp_path / "btcv"))
    assert _state("btcv", tmp_path) == "prepared"

    next((tmp_path / "btcv").rglob("img0001.nii.gz")).unlink()
    assert _state("btcv", tmp_path) == "incomplete"


def test_scans_that_are_prepared_elsewhere_are_seen(tmp_path: pathlib.Path) -> None:
    task_layouts.write_btcv(tmp_path / "data" / "btcv")
    (tmp_path / "data" / "organ_mnist_3d").mkdir()
    root, elsewhere = str(tmp_path / "data"), str(tmp_path / "elsewhere")
    task_datasets.prepare("btcv", f"{root}/btcv", prepared_root=elsewhere)

    states = [
        task_datasets.find_state(name, f"{root}/{name}", prepared_root=elsewhere)
        for name in ("btcv", "organ_mnist_3d")
    ]

    assert states == ["prepared", "incomplete"]


def test_state_of_a_classification(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = layouts.few_cases("luna25", monkeypatch, count=1)
    classification_layouts.write_luna25(
        tmp_path / "luna25", classification_layouts.all_cases(splits)
    )

    assert _state("luna25", tmp_path) == "there"


def test_prepares_everything_once(own_data: pathlib.Path, log: list[str]) -> None:
    task_datasets.prepare("nnunet", str(own_data))
    scans = {path: path.stat().st_mtime_ns for path in (own_data / "prepared").rglob("*.scan")}
    task_datasets.prepare("nnunet", str(own_data))

    assert len(scans) == len(_LABELED)
    assert {path: path.stat().st_mtime_ns for path in scans} == scans
    assert log[0] == "INFO The license of own: unknown"


def test_what_it_prepares_is_what_training_reads(
    own_data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The protocol's own transforms find every scan prepared."""
    task_datasets.prepare("nnunet", str(own_data), prepared_root=str(tmp_path / "elsewhere"))

    dataset = datasets.NnUNet(
        str(own_data),
        transforms=transforms.TrainTransform(),
        prepared_root=str(tmp_path / "elsewhere"),
    )
    dataset.setup()
    assert dataset.prepared_store.missing(dataset.sources()) == []
    assert not (own_data / "prepared").exists()


def test_damaged_scans_are_named_and_replaced(own_data: pathlib.Path, log: list[str]) -> None:
    task_datasets.prepare("nnunet", str(own_data))
    path = next((own_data / "prepared").rglob("case_1-*.scan"))
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))

    task_datasets.prepare("nnunet", str(own_data))

    assert path.read_bytes() == intact
    assert "WARNING Damaged, so prepared again: case_1" in log


def test_missing_files_are_an_error(own_data: pathlib.Path) -> None:
    (own_data / "labelsTr" / "case_1.nii.gz").unlink()

    with pytest.raises(DatasetError, match="Case 'case_1': image without label"):
        task_datasets.prepare("nnunet", str(own_data))

    assert not (own_data / "prepared").exists()


def test_license_comes_before_any_download(tmp_path: pathlib.Path, log: list[str]) -> None:
    with pytest.raises(DatasetError, match="Register at https://competitions.codalab.org"):
        task_datasets.prepare("lits17", str(tmp_path / "lits17"), download=True)

    assert log[0].startswith("INFO The license of LiTS17: CC-BY-NC-ND-4.0 (https://")
    assert "non-commercial, no derivatives" in log[0]


def test_license_is_logged_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    nowhere = catalog.Resource("ftp://nowhere/Task09_Spleen.tar", "Task09_Spleen.tar")
    facts = dataclasses.replace(datasets.MSDSpleen.facts, resources=(nowhere,))
    monkeypatch.setattr(datasets.MSDSpleen, "facts", facts)

    with pytest.raises(DatasetError, match="neither an http nor an https"):
        task_datasets.prepare("msd_task09_spleen", str(tmp_path), download=True)

    assert sum("The license of" in message for message in log) == 1


def test_classifications_need_no_preparation(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = layouts.few_cases("luna25", monkeypatch, count=1)
    cases = classification_layouts.all_cases(splits)
    classification_layouts.write_luna25(tmp_path, cases)

    assert len(task_datasets.prepare("luna25", str(tmp_path))) == len(cases)
    with pytest.raises(ValueError, match="need no preparation: leave out `--prepared-root`"):
        task_datasets.prepare("luna25", str(tmp_path), prepared_root=str(tmp_path / "prepared"))


@pytest.mark.parametrize(
    ("task", "root", "download", "message"),
    [
        ("btvc", ".", False, "no task 'btvc': choose one of btcv, .*cc_ccii, nnunet, msd"),
        ("nnunet", ".", True, "own scans, which cannot be downloaded"),
        ("btcv", "nowhere", False, "There is no folder 'nowhere'"),
        ("btcv", "", False, "There is no folder ''"),
    ],
)
def test_wrong_arguments(task: str, root: str, download: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_datasets.prepare(task, root, download=download)


def _state(name: str, root: pathlib.Path) -> str:
    return task_datasets.find_state(name, str(root / name))
