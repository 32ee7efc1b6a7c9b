"""Tests of LUNA25."""

import pathlib
import random
from typing import Any

import numpy as np
import pytest
import torch

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import volume_transforms
from eva_coralbay.data.datasets import classification
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets import split_drawing
from tests.eva_coralbay.data.datasets.layouts import few_cases


@pytest.fixture(name="root")
def _root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A data set with a few nodules a split."""
    splits = few_cases("luna25", monkeypatch)
    layouts.write_luna25(tmp_path, layouts.all_cases(splits))
    return tmp_path


def _patient(case: str) -> str:
    return case.split("_")[0]


def test_the_split_is_drawn_by_patient() -> None:
    """The counts are those that the challenge publishes."""
    splits = splits_lib.read_splits("luna25").schemes["v1"]
    cases = sum(splits.values(), [])
    patients = {_patient(case) for case in cases}
    scans = {(_patient(case), case.split("_")[2]) for case in cases}
    assert (len(cases), len(scans), len(patients)) == (6163, 4069, 2120)
    drawn = split_drawing.draw(sorted(patients))
    for split, members in splits.items():
        assert members == sorted(case for case in cases if _patient(case) in set(drawn[split]))


def test_samples(root: pathlib.Path) -> None:
    dataset = classification.LUNA25(str(root), "val")
    dataset.setup()
    assert dataset.case_ids == sorted(splits_lib.read_splits("luna25").schemes["v1"]["val"])
    block, target, metadata = dataset[1]
    case = dataset.case_ids[1]
    assert metadata == {"case": case, "patient": _patient(case)}
    assert dataset.filename(1) == f"luna25_nodule_blocks/image/{case}.npy"
    assert block.shape == (1, 64, 128, 128) and block.dtype == torch.float32
    np.testing.assert_array_equal(
        block[0], np.load(root / "luna25_nodule_blocks" / "image" / f"{case}.npy")
    )
    assert target.shape == () and target.dtype == torch.int64
    # z, y, x of the world, which is LPS, to RAS+
    affine = grid_lib.straight_affine((1.25, 0.7, 0.7), (60.0, 50.0, -100.0))
    np.testing.assert_allclose(block.affine, affine)


def test_labels_are_those_of_the_table(root: pathlib.Path) -> None:
    cases = layouts.all_cases(splits_lib.read_splits("luna25"))
    labels = {case: int(random.Random(case).random() < 0.5) for case in cases}
    layouts.write_luna25_table(root, dict(sorted(labels.items(), reverse=True)))
    dataset = classification.LUNA25(str(root))
    dataset.setup()
    assert [int(dataset[index][1]) for index in range(len(dataset))] == list(
        dict(sorted(labels.items())).values()
    )


def test_the_nodule_is_in_the_middle(root: pathlib.Path) -> None:
    transform = volume_transforms.CropTransform(size=(65, 65, 65), max_rotation=20.0)
    dataset = classification.LUNA25(str(root), "train", transforms=transform)
    dataset.setup()
    image, _, _ = dataset[0]
    assert image.shape == (1, 65, 65, 65) and image.dtype == torch.float32
    assert image[0, 32, 32, 32] == pytest.approx(1100 / 1400, abs=0.01)


@pytest.mark.parametrize("kind", ["image", "metadata"])
def test_a_missing_file_is_named(root: pathlib.Path, kind: str) -> None:
    case = splits_lib.read_splits("luna25").schemes["v1"]["train"][2]
    path = root / "luna25_nodule_blocks" / kind / f"{case}.npy"
    path.unlink()
    classification.LUNA25(str(root), "val").setup()
    with pytest.raises(DatasetError, match=f"Case '{case}': '{path}' is missing"):
        classification.LUNA25(str(root), "train").setup()


def test_a_missing_row_shifts_no_other(root: pathlib.Path) -> None:
    cases = layouts.all_cases(splits_lib.read_splits("luna25"))
    train = splits_lib.read_splits("luna25").schemes["v1"]["train"]
    layouts.write_luna25_table(root, {case: 0 for case in cases if case != train[0]})
    with pytest.raises(DatasetError, match=f"1 of 4 cases are missing:\n  - Case '{train[0]}'"):
        classification.LUNA25(str(root), "train").setup()
    val = classification.LUNA25(str(root), "val")
    val.setup()
    assert val.case_ids == sorted(splits_lib.read_splits("luna25").schemes["v1"]["val"])


class _Malicious:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("executed",)


def test_nothing_in_the_metadata_is_executed(
    root: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = classification.LUNA25(str(root), "train")
    dataset.setup()
    path = root / "luna25_nodule_blocks" / "metadata" / f"{dataset.case_ids[0]}.npy"
    np.save(path, np.array({**layouts.metadata(), "origin": _Malicious()}, dtype=object))
    with pytest.raises(DatasetError, match="not only arrays"):
        dataset[0]
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"cnumpy.missing\ndtype\n.", id="no such module"),
        pytest.param(b"cnumpy\n_reconstruct\n.", id="no such name"),
        pytest.param(b"].", id="a list"),
    ],
)
def test_strange_metadata_are_named(root: pathlib.Path, content: bytes) -> None:
    dataset = classification.LUNA25(str(root), "train")
    dataset.setup()
    case = dataset.case_ids[0]
    path = root / "luna25_nodule_blocks" / "metadata" / f"{case}.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(content)
    with pytest.raises(DatasetError, match=f"Case '{case}', file '.*unreadable"):
        dataset[0]


@pytest.mark.parametrize("damage", ["cut off", "flat", "no spacing"])
def test_broken_blocks_are_named(root: pathlib.Path, damage: str) -> None:
    dataset = classification.LUNA25(str(root), "train")
    dataset.setup()
    case = dataset.case_ids[0]
    blocks = root / "luna25_nodule_blocks"
    if damage == "cut off":
        content = (blocks / "image" / f"{case}.npy").read_bytes()
        (blocks / "image" / f"{case}.npy").write_bytes(content[:1000])
    elif damage == "flat":
        np.save(blocks / "image" / f"{case}.npy", np.zeros((128, 128), np.int16))
    else:
        np.save(blocks / "metadata" / f"{case}.npy", np.array({"origin": np.zeros(3)}, object))
    with pytest.raises(DatasetError, match=f"Case '{case}', file '.*unreadable"):
        dataset[0]


def test_a_broken_table_is_named(root: pathlib.Path) -> None:
    (root / layouts.LUNA25_TABLE).write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match=f"{layouts.LUNA25_TABLE}': .*unreadable"):
        classification.LUNA25(str(root), "train").setup()
