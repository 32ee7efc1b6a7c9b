"""Tests of what all segmentation data sets share."""

import pathlib
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from eva_coralbay.data import datasets, nifti, transforms
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError
from tests.eva_coralbay.data.datasets import layouts


class Folder(datasets.SegmentationDataset):
    """Cases `c<i>` in two folders; odd ones are for validation."""

    missing: list[str] = []
    """Cases that the split names but nobody wrote."""

    name = "folder"
    license = "CC0-1.0"
    split_name = "parity"
    classes = ["background", "liver", "spleen"]

    def _find_files(self) -> dict[str, datasets.CaseFiles]:
        stems = {path.name.split(".")[0] for path in pathlib.Path(self._root).glob("*/*.nii.gz")}
        return {
            stem: datasets.CaseFiles(image=f"ct/{stem}.nii.gz", label=f"seg/{stem}.nii.gz")
            for stem in stems
        }

    def _split_cases(self) -> list[str]:
        wanted = {"train": (0,), "val": (1,)}.get(self._split or "all", (0, 1))
        return [case for case in self._files if int(case[1:]) % 2 in wanted] + self.missing


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of four cases without fault."""
    for index in range(4):
        layouts.write_image(tmp_path / "ct" / f"c{index}.nii.gz", seed=index)
        layouts.write_label(tmp_path / "seg" / f"c{index}.nii.gz")
    return tmp_path


def make(root: pathlib.Path, split: Any = None, **kwargs: Any) -> Folder:
    dataset = Folder(str(root), split, **kwargs)
    dataset.setup()
    return dataset


def test_cases_are_ordered_by_id(root: pathlib.Path) -> None:
    dataset = make(root)

    assert dataset.case_ids == ["c0", "c1", "c2", "c3"]
    assert len(dataset) == 4
    assert dataset.filename(2) == "ct/c2.nii.gz"
    assert dataset.split is None
    assert dataset.class_to_idx == {"background": 0, "liver": 1, "spleen": 2}


def test_splits_are_apart(root: pathlib.Path) -> None:
    assert make(root, "train").case_ids == ["c0", "c2"]
    assert make(root, "val").case_ids == ["c1", "c3"]


def test_a_sample_is_scan_mask_and_case(root: pathlib.Path) -> None:
    volume, mask, metadata = make(root, "val")[1]

    assert metadata == {"case": "c3"}
    assert volume.shape == mask.shape == (1, 6, 5, 4)
    assert volume.dtype == torch.float32
    assert mask.dtype == torch.uint8
    assert mask.unique().tolist() == [0, 1, 2]
    assert grid_lib.spacing(volume.affine) == (3.0, 2.0, 1.0)


def test_load_data_and_load_target_agree_with_the_sample(root: pathlib.Path) -> None:
    dataset = make(root)
    volume, mask, _ = dataset[1]

    assert torch.equal(dataset.load_data(1), volume)
    assert torch.equal(dataset.load_target(1), mask)


def test_transforms_get_the_prepared_scan(root: pathlib.Path) -> None:
    transform = transforms.EvalTransform(spacing=(6.0, 2.0, 1.0))
    dataset = make(root, transforms=transform, prepared=False)

    image, target, _ = dataset[0]

    assert image.shape == target.shape == (1, 4, 5, 4)
    assert 0.0 <= image.min() <= image.max() <= 1.0
    assert target.max() == 2


def test_a_sample_decodes_each_file_once(root: pathlib.Path) -> None:
    dataset = make(root)

    with (
        mock.patch.object(nifti, "read_scan", wraps=nifti.read_scan) as read_scan,
        mock.patch.object(nifti, "read_mask", wraps=nifti.read_mask) as read_mask,
    ):
        dataset[0]

    assert (read_scan.call_count, read_mask.call_count) == (1, 1)


def test_validation_decodes_no_volume(root: pathlib.Path) -> None:
    with (
        mock.patch.object(nifti, "read_scan") as scan,
        mock.patch.object(nifti, "read_mask") as mask,
    ):
        make(root)

    scan.assert_not_called()
    mask.assert_not_called()


def test_an_empty_folder_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="'folder', split 'train' .parity. in .* has no cases"):
        make(tmp_path, "train")


def test_an_image_without_label_is_an_error(root: pathlib.Path) -> None:
    (root / "seg" / "c1.nii.gz").unlink()

    with pytest.raises(DatasetError, match="'c1': image without label, .*seg/c1.nii.gz"):
        make(root)


def test_a_label_without_image_is_an_error(root: pathlib.Path) -> None:
    (root / "ct" / "c1.nii.gz").unlink()

    with pytest.raises(DatasetError, match="'c1': label without image, .*ct/c1.nii.gz"):
        make(root)


def test_only_the_split_of_a_broken_case_is_hurt(root: pathlib.Path) -> None:
    (root / "seg" / "c1.nii.gz").unlink()

    assert make(root, "train").case_ids == ["c0", "c2"]
    with pytest.raises(DatasetError, match="split 'val' .parity. in .*: 1 of 2 cases"):
        make(root, "val")


def test_a_case_that_only_the_split_knows_is_an_error(root: pathlib.Path) -> None:
    with (
        mock.patch.object(Folder, "missing", ["c9"]),
        pytest.raises(DatasetError, match="'c9': neither image nor label"),
    ):
        make(root, "train")


def test_different_grids_are_found_before_loading(root: pathlib.Path) -> None:
    layouts.write_volume(root / "seg" / "c2.nii.gz", np.zeros((4, 5, 7), np.uint8))

    with pytest.raises(DatasetError, match="Case 'c2', .*another grid.*7x5x4.*6x5x4"):
        make(root)


def test_an_unreadable_header_is_found_before_loading(root: pathlib.Path) -> None:
    (root / "ct" / "c2.nii.gz").write_bytes(b"not gzip")

    with pytest.raises(DatasetError, match="Case 'c2', file '.*ct/c2.nii.gz': .*unreadable"):
        make(root)


def test_all_broken_cases_are_reported_at_once_and_ten_are_named(tmp_path: pathlib.Path) -> None:
    for index in range(10, 23):
        layouts.write_image(tmp_path / "ct" / f"c{index}.nii.gz")

    with pytest.raises(DatasetError) as error:
        make(tmp_path)

    message = str(error.value)
    assert "13 of 13 cases" in message
    assert message.count("image without label") == 10
    assert message.endswith("and 3 more.")


def test_an_unknown_label_is_an_error_on_loading(root: pathlib.Path) -> None:
    layouts.write_volume(root / "seg" / "c0.nii.gz", np.full(layouts.SHAPE, 3, np.uint8))

    with pytest.raises(DatasetError, match=r"Case 'c0', file '.*': .*label values 3;"):
        make(root)[0]


def test_a_training_case_without_foreground_is_one_like_any_other(root: pathlib.Path) -> None:
    layouts.write_volume(root / "seg" / "c2.nii.gz", np.zeros(layouts.SHAPE, np.uint8))
    transform = transforms.TrainTransform(roi_size=(4, 4, 4), num_samples=3)
    dataset = Folder(str(root), "train", transforms=transform)

    dataset.prepare_data()
    images, targets, metadata = dataset[1]

    assert metadata["case"] == "c2"
    assert len(images) == 3
    assert not any(target.any() for target in targets)


NO_HU = {
    "scaled": (lambda values: (values + 1000.0) / 2000.0, "not HU: .* scaled to .0, 1."),
    "above 0": (lambda values: values + 1024, "not HU: .* none below 0"),
    "bits": (lambda values: ((values + 1000) / 8).astype(np.uint8), "not HU: .*8 bits"),
    "saturated": (
        lambda values: np.where(values > 900, np.float32(1e38), values),
        "not HU: .*1e.38, more than 16 bits hold",
    ),
    "constant": (lambda values: np.full_like(values, -7), "constant: all voxels are -7"),
}
"""What may be done to HU, and what the error says."""


@pytest.mark.parametrize("kind", NO_HU)
@pytest.mark.parametrize("prepared", [True, False])
def test_a_scan_that_is_not_in_hu_is_an_error(
    root: pathlib.Path, kind: str, prepared: bool
) -> None:
    change, problem = NO_HU[kind]
    values = np.random.default_rng(0).integers(-1000, 1000, layouts.SHAPE, dtype=np.int16)
    layouts.write_volume(root / "ct" / "c2.nii.gz", change(values.astype(np.float32)))
    arguments = {"transforms": transforms.EvalTransform(), "prepared": prepared}

    with pytest.raises(DatasetError, match=f"Case 'c2', file '.*c2.nii.gz': {problem}.*`unchecke"):
        dataset = Folder(str(root), "train", **arguments)
        dataset.prepare_data()
        dataset.setup()
        dataset[1]
    for unchecked_cases in (["c2"], ["*"]):
        dataset = Folder(str(root), "train", unchecked_cases=unchecked_cases, **arguments)
        dataset.prepare_data()
        dataset.setup()
        assert dataset[1][0].ndim == 4


def test_a_scan_whose_hu_seem_to_be_halved_is_named_once(
    root: pathlib.Path, log: list[str]
) -> None:
    noise = np.random.default_rng(0).normal(0, 10, layouts.SHAPE)
    halved = np.where(noise < 0, -500.0, 20.0) + noise
    layouts.write_volume(root / "ct" / "c2.nii.gz", halved.astype(np.float32))
    arguments = {"transforms": transforms.EvalTransform(), "prepared": False}
    dataset = Folder(str(root), "train", **arguments)
    dataset.setup()
    for _ in range(2):
        dataset[1]
    (warning,) = [line for line in log if line.startswith("WARNING Case 'c2' is used, but")]
    assert "gas has about -506 HU" in warning


def test_a_scan_that_is_repaired_gives_what_an_intact_one_gives(root: pathlib.Path) -> None:
    """The damage shows in the middle of a sample, when random numbers were drawn already."""
    transform = transforms.TrainTransform(roi_size=(4, 4, 4), num_samples=3)
    samples = []
    for is_damaged in (False, True):
        dataset = Folder(str(root), "train", transforms=transform)
        dataset.prepare_data()
        if is_damaged:
            for path in root.glob("prepared/*/*.scan"):
                content = bytearray(path.read_bytes())
                content[-1] ^= 1
                path.write_bytes(content)
        dataset.setup()
        transform.set_random_state(3)
        samples.append([dataset[index] for index in (0, 1, 0)])

    for (images, targets, _), (expected_images, expected_targets, _) in zip(*samples, strict=True):
        assert all(map(torch.equal, images, expected_images))
        assert all(map(torch.equal, targets, expected_targets))


def test_checksums_are_those_of_the_content(
    root: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = make(root, "train").checksums()
    copy = tmp_path_factory.mktemp("copy")
    for path in root.glob("*/*.nii.gz"):
        target = copy / path.relative_to(root)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())

    assert make(copy, "train").checksums() == before
    assert make(copy, "val").checksums() != before
    layouts.write_image(copy / "ct" / "c2.nii.gz", seed=99)
    after = make(copy, "train").checksums()
    assert after["images"] != before["images"]
    assert after["labels"] == before["labels"]


def test_checksums_know_which_case_a_file_belongs_to(root: pathlib.Path) -> None:
    before = make(root, "train").checksums()
    first, second = root / "ct" / "c0.nii.gz", root / "ct" / "c2.nii.gz"
    swapped = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(swapped)

    assert make(root, "train").checksums()["images"] != before["images"]
