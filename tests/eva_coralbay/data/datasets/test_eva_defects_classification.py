"""Shows the defects of eva's 3D classification data sets, and that ours do not have them."""

import inspect
import pathlib
from typing import Any

import numpy as np
import pytest
import requests
import torch
from eva.vision.data.datasets.classification import cc_ccii as eva_cc_ccii
from eva.vision.data.datasets.classification import luna25 as eva_luna25
from eva.vision.data.datasets.classification import nodule_mnist_3d as eva_nodule_mnist_3d

from eva_coralbay.data import volume_transforms
from eva_coralbay.data.datasets import classification
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets.layouts import few_cases


@pytest.fixture(name="luna25_root")
def _luna25_root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    layouts.write_luna25(tmp_path, layouts.all_cases(few_cases("luna25", monkeypatch)))
    return str(tmp_path)


class _CompletedLUNA25(eva_luna25.LUNA25):
    """eva's class with the method that it lacks."""

    def filename(self, index: int) -> str:
        return str(index)


def test_luna25_can_be_built(luna25_root: str) -> None:
    with pytest.raises(TypeError, match="abstract.* '?filename"):
        eva_luna25.LUNA25(luna25_root)  # type: ignore[reportAbstractUsage]  # the defect that is shown
    dataset = classification.LUNA25(luna25_root)
    dataset.setup()
    assert dataset.filename(0).startswith("luna25_nodule_blocks/image/")


def test_luna25_uses_the_split(luna25_root: str) -> None:
    sizes = {}
    for name, kind in (("eva", _CompletedLUNA25), ("ours", classification.LUNA25)):
        datasets = [kind(luna25_root, split) for split in ("train", "val", "test")]
        for dataset in datasets:
            dataset.setup()
        sizes[name] = [len(dataset) for dataset in datasets]
    assert sizes == {"eva": [12, 12, 12], "ours": [4, 4, 4]}


def test_luna25_applies_the_transform(luna25_root: str) -> None:
    theirs = _CompletedLUNA25(luna25_root, transform=lambda *_: 1 / 0)
    theirs.setup()
    theirs[0]
    transform = volume_transforms.CropTransform(size=(8, 9, 10))
    ours = classification.LUNA25(luna25_root, transforms=transform)
    ours.setup()
    assert ours[0][0].shape == (1, 8, 9, 10)


def test_luna25_fills_with_air_outside_of_the_block(luna25_root: str) -> None:
    """0 HU is water; a block of 64 slices of 0.6 mm is shorter than the cube of 50 mm."""
    for path in pathlib.Path(luna25_root).glob("luna25_nodule_blocks/metadata/*.npy"):
        np.save(path, np.array(layouts.metadata(spacing=(0.6, 0.7, 0.7)), dtype=object))
    theirs = _CompletedLUNA25(luna25_root)
    ours = classification.LUNA25(luna25_root, transforms=volume_transforms.CropTransform())
    corners = []
    for dataset in (theirs, ours):
        dataset.setup()
        corners.append(float(dataset[0][0][0, 0, 0, 0]))
    assert corners == [pytest.approx(1000 / 1400), 0.0]


def test_mnist_3d_has_file_names_dtypes_and_shapes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = few_cases("nodule_mnist_3d", monkeypatch)
    layouts.write_nodule_mnist_3d(tmp_path, layouts.all_cases(splits))
    theirs = eva_nodule_mnist_3d.NoduleMNIST3D("train", root=str(tmp_path))
    image, target = theirs[0]
    assert not hasattr(theirs, "filename")
    assert isinstance(image, np.ndarray) and image.dtype == np.float64
    assert isinstance(target, np.ndarray) and target.shape == (1,)

    transform = volume_transforms.ResizeTransform()
    ours = classification.NoduleMNIST3D(str(tmp_path), "train", transforms=transform)
    ours.setup()
    tensor, label, metadata = ours[0]
    assert ours.filename(0) == "nodulemnist3d_64.npz/train_0000"
    assert metadata["case"] == "train_0000"
    assert tensor.dtype == torch.float32 and label.shape == () and label.dtype == torch.int64
    np.testing.assert_allclose(tensor, image, atol=1e-6)


def test_mnist_3d_counts_what_is_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """eva's class fails without a word when a file holds fewer volumes than the official one."""
    few_cases("nodule_mnist_3d", monkeypatch)
    layouts.write_nodule_mnist_3d(tmp_path, ["train_0000", "val_0000", "test_0000"])
    with pytest.raises(AssertionError, match="^$"):
        len(eva_nodule_mnist_3d.NoduleMNIST3D("train", root=str(tmp_path)))
    with pytest.raises(ValueError, match="Case 'train_0003': not found"):
        classification.NoduleMNIST3D(str(tmp_path), "train").setup()


class _Response:
    """A download of a table."""

    def __enter__(self) -> "_Response":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def raise_for_status(self) -> None: ...

    def iter_content(self, chunk_size: int) -> list[bytes]:
        return [b"patient_id,scan_id,target\n364,1880,2\n"]


def test_cc_ccii_writes_nothing_into_the_data(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """eva's class downloads its tables into the data, and then looks for them elsewhere."""
    monkeypatch.setattr(requests, "get", lambda *_, **__: _Response())
    theirs = eva_cc_ccii.CC_CCII(str(tmp_path), "train", metadata_root=str(tmp_path / "metadata"))
    theirs._download_metadata()
    assert len(list(tmp_path.glob("CC_CCII_fold*.csv"))) == 6
    with pytest.raises(FileNotFoundError):
        theirs.setup()

    root = tmp_path / "data"
    layouts.write_cc_ccii(root, layouts.all_cases(few_cases("cc_ccii", monkeypatch)))
    before = sorted(root.rglob("*"))
    dataset = classification.CCCCII(str(root), "train")
    dataset.prepare_data()
    dataset.setup()
    dataset[0]
    assert sorted(root.rglob("*")) == before


def test_cc_ccii_has_one_channel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """eva's class makes a batch of slices of a scan, 8 bit, which no encoder takes."""
    cases = layouts.all_cases(few_cases("cc_ccii", monkeypatch), "voco")
    layouts.write_cc_ccii_arrays(tmp_path, cases)
    case = splits_lib.read_splits("cc_ccii").schemes["voco"]["train"][0]
    _, patient, scan = case.split("-")
    for part in ("train", "valid"):
        table = f"patient_id,scan_id,target\n{patient},{scan},1\n"
        (tmp_path / f"CC_CCII_fold0_{part}.csv").write_text(table)
    theirs = eva_cc_ccii.CC_CCII(str(tmp_path), "train")
    theirs.setup()
    ours = classification.CCCCII(str(tmp_path), "train", split_scheme="voco")
    ours.setup()
    volume = ours.load_data(ours.case_ids.index(case))
    array = theirs.load_data(0)
    assert array.shape == (volume.shape[1], 1, 64, 64) and array.dtype == torch.uint8
    assert volume.shape == (1, *volume.shape[1:]) and volume.dtype == torch.float32
    assert torch.equal(volume[0], array[:, 0].float())


def test_cc_ccii_has_a_held_out_test() -> None:
    annotation = inspect.signature(eva_cc_ccii.CC_CCII).parameters["split"].annotation
    assert "test" not in str(annotation)
    assert list(splits_lib.read_splits("cc_ccii").schemes["v1"]) == ["train", "val", "test"]
