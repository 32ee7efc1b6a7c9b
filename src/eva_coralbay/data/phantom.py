"""Generated CT-like scans of the trunk with labeled organs.

They stand in for real scans where those may not be shipped: in the quickstart, the tests and the
benchmarks. Every case draws its own build, posture, organs, contrast phase and noise from its
seed, so that a network has to learn anatomy and not one image.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eva_coralbay import _atomic_files, _progress
from eva_coralbay.data import foreign_files, nifti_image, phantom_anatomy
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import DatasetError, EvaCoralbayError

CLASSES = phantom_anatomy.CLASSES
"""The name of each label value."""

_LICENSE = "CC0-1.0"
"""The license of the generated data."""

_VERSION = 1
"""To be raised whenever the same seed gives other phantoms."""

_STORED_ORIENTATIONS = ("LPS", "RAS", "PLI")
"""The axis codes in which the cases are stored, in turn."""


class Phantom(NamedTuple):
    """One generated case."""

    hounsfield: npt.NDArray[np.int16]
    """The scan in HU, of shape [D, H, W]."""

    labels: npt.NDArray[np.uint8]
    """The label map, of shape [D, H, W]."""

    affine: npt.NDArray[np.float64]
    """The affine of shape [4, 4] with columns in the order (D, H, W)."""


def generate(
    index: int,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] = (72, 72, 80),
    spacing_mm: tuple[float, float, float] = (4.5, 4.5, 4.5),
) -> Phantom:
    """Generates a case.

    Args:
        index: The number of the case.
        seed: The seed of the data set.
        shape: The number of voxels along (D, H, W).
        spacing_mm: The spacing along (D, H, W) in mm.

    Returns:
        The case, equal for equal arguments.
    """
    random = np.random.default_rng([seed, index])
    hounsfield, labels = phantom_anatomy.draw(random, shape, spacing_mm)
    affine = grid_lib.straight_affine(spacing_mm, random.uniform(-200.0, 200.0, size=3).tolist())
    return Phantom(
        hounsfield=np.rint(hounsfield).clip(-1024, 3071).astype(np.int16),
        labels=labels,
        affine=affine,
    )


def write_dataset(
    out: str,
    *,
    cases: int = 20,
    val_cases: int = 4,
    seed: int = 0,
    shape: tuple[int, int, int] = (72, 72, 80),
    spacing_mm: tuple[float, float, float] = (4.5, 4.5, 4.5),
) -> None:
    """Writes phantoms in the raw layout of nnU-Net; cases that are there already are kept.

    The cases are stored in different orientations in turn, with int16 HU and uint8 labels.

    Args:
        out: The folder to write to.
        cases: The number of cases.
        val_cases: How many of them, the last ones, are held out for validation.
        seed: The seed which all cases follow from.
        shape: The number of voxels of a case along (D, H, W).
        spacing_mm: The spacing along (D, H, W) in mm.

    Raises:
        DatasetError: If the folder holds another data set.
        EvaCoralbayError: If no case is left to train on.
    """
    if not 0 <= val_cases < cases:
        raise EvaCoralbayError(f"`val_cases` must be from 0 to {cases - 1}, got {val_cases}.")
    settings = {
        "version": _VERSION,
        "seed": seed,
        "shape": list(shape),
        "spacing_mm": list(spacing_mm),
    }
    grid_lib.check_spacing(spacing_mm)
    for folder in filter(os.path.isdir, (out, f"{out}/imagesTr", f"{out}/labelsTr")):
        _atomic_files.remove_leftovers(folder)
    _write_description(out, settings, cases=cases)
    names = [f"phantom_{index:03d}" for index in range(cases)]
    splits = [{"train": names[: cases - val_cases], "val": names[cases - val_cases :]}]
    _atomic_files.write_atomically(pathlib.Path(out, "splits_final.json"), _as_json(splits))
    for index, name in enumerate(_progress.bar(names, desc="Generating phantoms", unit="case")):
        image = os.path.join(out, "imagesTr", f"{name}_0000.nii.gz")
        label = os.path.join(out, "labelsTr", f"{name}.nii.gz")
        if not (pathlib.Path(image).is_file() and pathlib.Path(label).is_file()):
            phantom = generate(index, seed=seed, shape=shape, spacing_mm=spacing_mm)
            orientation = _STORED_ORIENTATIONS[index % len(_STORED_ORIENTATIONS)]
            nifti_image.write(image, phantom.hounsfield, phantom.affine, orientation=orientation)
            nifti_image.write(label, phantom.labels, phantom.affine, orientation=orientation)


def _write_description(out: str, settings: dict[str, Any], *, cases: int) -> None:
    """Writes `dataset.json`, unless the folder holds a data set that is not this one."""
    path = os.path.join(out, "dataset.json")
    if pathlib.Path(path).is_file():
        description = foreign_files.read_json(path, fix="Choose another folder.")
        found = description.get("generator") if isinstance(description, dict) else None
        if found != settings:
            raise DatasetError(
                f"Folder '{out}' holds another data set ({found} instead of {settings}). Choose "
                "another folder, or delete this one."
            )
    description = {
        "name": "phantom",
        "description": "Generated CT-like scans of the trunk",
        "license": _LICENSE,
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(CLASSES)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "generator": settings,
    }
    _atomic_files.write_atomically(path, _as_json(description))


def _as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
