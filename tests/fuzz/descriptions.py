"""Malformed `dataset.json` and `splits_final.json`, in the layouts of nnU-Net and the Decathlon."""

import json
import pathlib
import zlib
from typing import Any

import numpy as np

from eva_coralbay.cli import main
from eva_coralbay.data import datasets, transforms
from tests.eva_coralbay.data.datasets import layouts
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_CASES = ["case_0", "case_1", "case_2"]

_VALUES: Any = (
    None, True, False, 0, 1, -1, 2**70, 1.5, 2.0, float("nan"), float("inf"), "", "a", "1", "-1",
    "[/b]", "[bold]", "a\nb", "a\x00b", "\ud800", "\u202e", "e\u0301", "../../x", "/etc/passwd",
    "C:\\x", "a" * 5000, [], [[]], {}, {"a": 1}, [1], [1, 2], [None], [2.0], "ignore", "background",
    [["case_0"]], ["case_0"], ["case_0", "case_0"], {"case_0": 1}, "case_0", ".nii", ".NII.GZ",
)  # fmt: skip
"""What may stand in any place."""


def _write_nnunet(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    root = folder / "mine"
    labels = {"0": "background", "1": "liver", "2": "spleen"}
    description: Any = {"name": "Mine", "license": "MIT"}
    if random.random() < 0.3:
        description["labels"] = labels
    if random.random() < 0.2:
        description["labels"] = {**layouts.LABELS, "ignore": int(random.integers(2, 6))}
    splits = [{"train": _CASES[:2], "val": _CASES[2:]}]
    layouts.write_nnunet(root, _CASES, splits=splits, description=description)
    return _damage(random, root)


def _write_msd(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    root = folder / "mine"
    layouts.write_nnunet(root, _CASES, splits=[{"train": _CASES[:2], "val": _CASES[2:]}])
    listed = [
        {"image": f"./imagesTr/{case}_0000.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        for case in _CASES
    ]
    labels = {"0": "background", "1": "liver", "2": "spleen"}
    modality, test = {"0": "CT"}, ["./imagesTs/a.nii.gz"]
    content = {"name": "M", "labels": labels, "modality": modality, "test": test}
    layouts.write_json(root / "dataset.json", {**content, "training": listed})
    return _damage(random, root)


def _damage(random: np.random.Generator, root: pathlib.Path) -> pathlib.Path:
    """Damages one of the two files, and returns the root."""
    paths = sorted(root.glob("*.json"))
    path = mutations.choose(random, paths)
    content = json.loads(path.read_bytes())
    for _ in range(int(random.integers(1, 3))):
        content = mutations.replace_node(random, content, _VALUES)
    text = json.dumps(content, allow_nan=True, ensure_ascii=bool(random.integers(2)))
    encoding = mutations.choose(random, ("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    encoded = text.encode(encoding, errors="surrogatepass" if "utf" in encoding else "replace")
    kind = random.integers(10)
    if kind == 0:
        encoded = mutations.damage(random, encoded)
    elif kind == 1:
        opening = mutations.choose(random, (b"[", b'{"a":', b'{"labels":[', b'"\\u', b"9"))
        encoded = opening * int(random.integers(1, 50_000))
    path.write_bytes(encoded)
    return root


def _read(dataset_class: Any, root: pathlib.Path) -> Any:
    """Does what an evaluation and `inspect` do with a data set."""
    transform = transforms.TrainTransform(spacing=(6.0, 6.0, 6.0), roi_size=(4, 4, 4))
    samples = []
    for split in (None, "train", "val"):
        dataset = dataset_class(str(root), split, transforms=transform)
        dataset.prepare_data()
        dataset.setup()
        json.dumps([dataset.name, dataset.license, dataset.classes, dataset.split_name]).encode()
        samples.append((dataset.case_ids, dataset.classes, dataset[0]))
    _inspect(dataset_class, root, samples[0][0][0])
    return samples


def _inspect(dataset_class: Any, root: pathlib.Path, case: str) -> None:
    """Runs the command on one of ten inputs, as it draws a picture."""
    if zlib.crc32((root / "dataset.json").read_bytes()) % 10:
        return
    task, out = dataset_class.__name__.lower(), str(root.parent / "case.png")
    status = main.main(["inspect", task, f"--root={root}", f"--out={out}", f"--case={case}"])
    if status != 0:
        raise AssertionError(f"the command ends with {status}")


def _check(root: pathlib.Path, samples: Any) -> str | None:
    (everything, classes, _), (train, *_), (val, *_) = samples
    if set(train) & set(val) or not set(train) | set(val) <= set(everything):
        return f"the splits {train} and {val} of {everything}"
    if classes[0] != "background" or len(set(classes)) < len(classes):
        return f"the classes {classes}"
    if not all(isinstance(name, str) and name.isprintable() for name in (*everything, *classes)):
        return f"the names {everything} and {classes}"
    return None


_GROWTH = 256 * 2**20
"""How much memory, in bytes, an input may take: the picture that is drawn takes 100 MiB."""

NNUNET = Kind(
    "nnunet", _write_nnunet, lambda root: _read(datasets.NnUNet, root), _check, max_growth=_GROWTH
)

MSD = Kind("msd", _write_msd, lambda root: _read(datasets.MSD, root), _check, max_growth=_GROWTH)
