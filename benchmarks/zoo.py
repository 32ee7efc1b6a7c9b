"""Whether every model of the zoo can be probed on real scans: Dice, time and memory of each.

Random weights, so that nothing is downloaded: the Dice says only that the way from scan to score is
whole. Three training cases and two scored ones, of scans in nnU-Net's layout such as OpenKBP's,
with the spacing and the windows of the task `openkbp`.
"""

import argparse
import contextlib
import io
import json
import pathlib
import tempfile
import time
from typing import Any

import torch
from eva.core.trainers import functional
from loguru import logger

from eva_coralbay import _tensor_meter
from eva_coralbay.data import SegmentationData
from eva_coralbay.evaluation import ProbeModule, Trainer
from eva_coralbay.models import zoo
from eva_coralbay.results import record
from eva_coralbay.tasks import catalog, facts

_TASK = catalog.TASKS["openkbp"]

_EXAMPLES = """examples:
  python benchmarks/zoo.py data/openkbp_oar
  python benchmarks/zoo.py data/openkbp_oar --models radiology/voxelfm --protocol probe-native
"""


def main() -> None:
    """Prints a row a model, each when it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=pathlib.Path, help="a folder in nnU-Net's layout")
    parser.add_argument("--models", nargs="+", default=list(zoo.ENTRIES), choices=zoo.ENTRIES)
    parser.add_argument("--protocol", default="probe", choices=("probe", "probe-native"))
    arguments = parser.parse_args()
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        _link_five_cases(arguments.data.resolve(), root / "data")
        for name in arguments.models:
            dice, seconds, gib = _probe(name, arguments.protocol, root)
            print(f"{name:30} Dice {dice:.3f} {seconds:6.0f} s {gib:6.2f} GiB", flush=True)


def _link_five_cases(source: pathlib.Path, target: pathlib.Path) -> None:
    """Makes a data set of the first three training cases of another and its first two others."""
    (split, *_) = json.loads((source / "splits_final.json").read_text(encoding="utf-8"))
    few = {"train": split["train"][:3], "val": split["val"][:2]}
    cases = few["train"] + few["val"]
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    for folder, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (target / folder).mkdir(parents=True)
        for case in cases:
            name = f"{case}{suffix}{description['file_ending']}"
            (target / folder / name).symlink_to(source / folder / name)
    description["numTraining"] = len(cases)
    (target / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    (target / "splits_final.json").write_text(json.dumps([few]), encoding="utf-8")


def _probe(name: str, protocol: Any, root: pathlib.Path) -> tuple[float, float, float]:
    """Probes a model; returns its Dice, the seconds it took and the GiB of its tensors."""
    maps = len(zoo.ENTRIES[name].maps) or 6
    module = ProbeModule(
        encoder={
            "class_path": "eva.vision.models.ModelFromRegistry",
            "init_args": {
                "model_name": name,
                "model_kwargs": {"out_indices": maps, "random_weights": True},
            },
        },
        task=_TASK.id,
        protocol=protocol,
        roi_size=_TASK.crop,
    )
    datamodule = SegmentationData(
        dataset={
            "class_path": "eva_coralbay.data.datasets.NnUNet",
            "init_args": {"root": str(root / "data"), "prepared_root": str(root / "prepared")},
        },
        protocol=protocol,
        spacing=_TASK.spacing or facts.SPACING_MM,
        hu_window=_TASK.hu_window or facts.SOFT_TISSUE_HU,
        num_workers=0,
    )
    out = root / "logs" / name.replace("/", "__")
    trainer = Trainer(
        task=_TASK.id,
        task_version=_TASK.version,
        model=name,
        protocol=protocol,
        default_root_dir=str(out),
        n_runs=1,
        refresh_rate=0,
        accelerator="cpu",
    )
    started = time.perf_counter()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        torch.random.fork_rng(devices=[]),
        _tensor_meter.TensorMeter("cpu") as meter,
    ):
        functional.run_evaluation_session(trainer, module, datamodule, n_runs=1)
    seconds = time.perf_counter() - started
    (path,) = out.glob("*/run_0/record_val_last.json")
    dice = record.Record.read(path).metrics["dice"]
    return float("nan") if dice is None else dice, seconds, meter.peak / 2**30


if __name__ == "__main__":
    main()
