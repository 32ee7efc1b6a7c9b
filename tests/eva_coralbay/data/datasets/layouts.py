"""Small data sets on disk, for the tests of the data sets."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel import nifti1

from eva_coralbay.tasks import splits as splits_lib

LABELS = {"background": 0, "liver": 1, "spleen": 2}

SHAPE = (4, 5, 6)


def write_volume(path: pathlib.Path, array: npt.NDArray[Any]) -> None:
    """Writes an array with a spacing of 1, 2 and 3 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nifti1.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)


def write_image(path: pathlib.Path, *, seed: int = 0) -> None:
    """Writes a scan of noise."""
    array = np.random.default_rng(seed).integers(-1000, 1000, SHAPE, dtype=np.int16)
    write_volume(path, array)


def write_label(path: pathlib.Path) -> None:
    """Writes a label map that holds every label."""
    write_volume(path, (np.indices(SHAPE)[0] % len(LABELS)).astype(np.uint8))


def write_nnunet(
    root: pathlib.Path,
    cases: Sequence[str],
    *,
    splits: Any = None,
    suffix: str = "Tr",
    file_ending: str = ".nii.gz",
    description: dict[str, Any] | None = None,
) -> None:
    """Writes a data set in the raw layout of nnU-Net."""
    for seed, case in enumerate(cases):
        write_image(root / f"images{suffix}" / f"{case}_0000{file_ending}", seed=seed)
        write_label(root / f"labels{suffix}" / f"{case}{file_ending}")
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": file_ending}
    write_json(root / "dataset.json", {**content, **(description or {})})
    if splits is not None:
        write_json(root / "splits_final.json", splits)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def few_cases(task: str, patch: pytest.MonkeyPatch, *, count: int = 4) -> splits_lib.Splits:
    """Makes the splits of a task have their first cases of each class only, and returns them."""
    splits = splits_lib.read_splits.__wrapped__(task)
    schemes = {
        scheme: {split: _pick(cases, count) for split, cases in lists.items()}
        for scheme, lists in splits.schemes.items()
    }
    few = splits._replace(schemes=schemes)
    patch.setattr(splits_lib, "read_splits", lambda _: few)
    return few


def _pick(cases: Sequence[str], count: int) -> list[str]:
    """Returns the first cases; of cases that name their class, the first of each class."""
    kinds = dict.fromkeys(case.split("-")[0] for case in cases) if "-" in cases[0] else [""]
    return [
        case for kind in kinds for case in [case for case in cases if case.startswith(kind)][:count]
    ]
