"""Tests of CC-CCII."""

import collections
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eva_coralbay.data import volume_transforms
from eva_coralbay.data.datasets import classification
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import classification_layouts as layouts
from tests.eva_coralbay.data.datasets import split_drawing
from tests.eva_coralbay.data.datasets.layouts import few_cases

_WRITERS = [
    pytest.param(layouts.write_cc_ccii, id="folders"),
    pytest.param(layouts.write_cc_ccii_arrays, id="arrays"),
]


def _few(monkeypatch: pytest.MonkeyPatch, scheme: str | None = None) -> list[str]:
    return layouts.all_cases(few_cases("cc_ccii", monkeypatch), scheme)


def _patient(case: str) -> str:
    return case.split("-")[1]


def test_counts_are_those_of_voco() -> None:
    splits = splits_lib.read_splits("cc_ccii").schemes["voco"]
    assert {split: len(cases) for split, cases in splits.items()} == {"train": 2514, "val": 1664}
    counts = collections.Counter(case.split("-")[0] for case in sum(splits.values(), []))
    assert counts == {"CP": 1556, "NCP": 1544, "Normal": 1078}


def test_the_split_is_drawn_by_patient_within_each_class() -> None:
    schemes = splits_lib.read_splits("cc_ccii").schemes
    cases = sum(schemes["voco"].values(), [])
    patients = [
        sorted({_patient(case) for case in cases if case.startswith(f"{label}-")})
        for label in ("CP", "NCP", "Normal")
    ]
    assert sum(map(len, patients)) == len(set(sum(patients, []))) == 2742
    drawn = split_drawing.draw(*patients)
    for split, members in schemes["v1"].items():
        assert members == sorted(case for case in cases if _patient(case) in set(drawn[split]))
    train, val = (set(map(_patient, schemes["voco"][split])) for split in ("train", "val"))
    assert not train & val


@pytest.mark.parametrize("write", _WRITERS)
@pytest.mark.parametrize("scheme", ["v1", "voco"])
def test_samples(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., None],
    scheme: str,
) -> None:
    write(tmp_path, _few(monkeypatch, "voco"))
    monkeypatch.undo()
    splits = few_cases("cc_ccii", monkeypatch)
    splits.schemes["v1"]["val"] = splits.schemes["voco"]["val"]
    transform = volume_transforms.ResizeTransform(size=(36, 40, 44))
    dataset = classification.CCCCII(str(tmp_path), "val", split_scheme=scheme, transforms=transform)
    dataset.setup()
    assert dataset.classes == ["Normal", "CP", "NCP"]
    assert len(dataset) == 12
    depths = set()
    for index, case in enumerate(dataset.case_ids):
        image, target, metadata = dataset[index]
        volume = dataset.load_data(index)
        depths.add(volume.shape[1])
        assert volume.dtype == image.dtype == torch.float32
        assert volume.shape[2:] == (64, 64) and volume.max() > 200
        assert image.shape == (1, 36, 40, 44) and image.max() <= 1
        assert dataset.classes[int(target)] == case.split("-")[0]
        assert target.shape == () and target.dtype == torch.int64
        assert metadata == {"case": case, "patient": _patient(case)}
    assert len(depths) > 1


def test_slices_are_in_the_order_of_their_numbers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = _few(monkeypatch)
    layouts.write_cc_ccii(tmp_path, cases)
    dataset = classification.CCCCII(str(tmp_path), "train")
    dataset.setup()
    folder = tmp_path / dataset.filename(0)
    for file in folder.iterdir():
        file.unlink()
    for number in (9, 100, 10):
        image = np.full((64, 64), number, dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "._9.png").write_bytes(b"\0\5\x16\7")  # macOS leaves it on foreign disks
    assert dataset.load_data(0)[0, :, 0, 0].tolist() == [9, 10, 100]


def test_missing_and_surplus_scans_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    cases = _few(monkeypatch)
    missing = splits_lib.read_splits("cc_ccii").schemes["v1"]["test"][0]
    layouts.write_cc_ccii(tmp_path, [*(case for case in cases if case != missing), "CP-1-2"])
    before = sorted(tmp_path.rglob("*"))
    dataset = classification.CCCCII(str(tmp_path), "train")
    dataset.setup()
    assert "the cases CP-1-2 are in no split" in "".join(log)
    with pytest.raises(DatasetError, match=f"1 of 12 cases are missing:\n  - Case '{missing}'"):
        classification.CCCCII(str(tmp_path), "test").setup()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_scan_without_slices_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_cc_ccii(tmp_path, _few(monkeypatch))
    case = splits_lib.read_splits("cc_ccii").schemes["v1"]["train"][0]
    folder = tmp_path.joinpath(*case.split("-"))
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(DatasetError, match=f"Case '{case}': '{folder}' holds no slices"):
        classification.CCCCII(str(tmp_path), "train").setup()


def test_folders_with_hyphens_are_surplus(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    layouts.write_cc_ccii(tmp_path, _few(monkeypatch))
    for folder in ("CP/1-2/3", "NCP/1/2-copy"):
        (tmp_path / folder).mkdir(parents=True)
    classification.CCCCII(str(tmp_path), "train").setup()
    assert "the cases CP-1-2-3, NCP-1-2-copy are in no split" in "".join(log)


def test_transform_and_scheme_tell_embeddings_apart(tmp_path: pathlib.Path) -> None:
    def describe(size: int, **arguments: Any) -> dict[str, Any]:
        transform = volume_transforms.ResizeTransform(size=(size, size, size))
        dataset = classification.CCCCII(str(tmp_path), transforms=transform, **arguments)
        return dataset.describe_inputs()

    first = describe(36)
    assert first == describe(36, split="test", embeddings_root="elsewhere")
    for other, parts in (
        (describe(40), {"transform"}),
        (describe(36, split_scheme="voco"), {"split scheme", "cases"}),
    ):
        assert {part for part in first if first[part] != other[part]} == parts


def test_files_that_change_tell_embeddings_apart(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_cc_ccii(tmp_path, _few(monkeypatch))

    def describe(split: Any) -> dict[str, Any]:
        dataset = classification.CCCCII(str(tmp_path), split)
        dataset.setup()
        return dataset.describe_inputs()

    before = describe("train")
    assert describe("val") == before
    file = next(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    os.utime(file, ns=(0, 0))
    after = describe("val")
    assert {part for part in before if before[part] != after[part]} == {"files"}


@pytest.mark.parametrize("damage", ["cut off", "another shape", "empty"])
def test_broken_scans_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    layouts.write_cc_ccii(tmp_path, _few(monkeypatch))
    dataset = classification.CCCCII(str(tmp_path), "train")
    dataset.setup()
    file, *others = sorted((tmp_path / dataset.filename(0)).iterdir())
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:30])
    elif damage == "another shape":
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(file)
    else:
        for path in [file, *others]:
            path.unlink()
    with pytest.raises(DatasetError, match=f"Case '{dataset.case_ids[0]}', .*unreadable") as error:
        dataset[0]
    assert damage != "cut off" or file.name in str(error.value)


def test_downloads_need_an_account(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _few(monkeypatch)
    with pytest.raises(DatasetError, match="cannot be downloaded without an account"):
        classification.CCCCII(str(tmp_path), "train", download=True).prepare_data()


def test_a_patient_that_is_scored_once_has_one_class(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = few_cases("cc_ccii", monkeypatch)
    case = splits.schemes["v1"]["val"][0]
    label, patient, _ = case.split("-")
    other = f"{'CP' if label != 'CP' else 'NCP'}-{patient}-99999"
    splits.schemes["v1"]["val"].append(other)
    layouts.write_cc_ccii(tmp_path, layouts.all_cases(splits))
    with pytest.raises(DatasetError, match=f"several classes: '?{patient}"):
        classification.CCCCII(str(tmp_path), "val").setup()
