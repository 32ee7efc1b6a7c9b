"""What the commands that are killed read.

It takes seconds to make, so all processes of the campaign share it.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping

from tests.eva_coralbay.data.datasets import layouts
from tests.eva_coralbay.inference import runs as evaluation_runs
from tests.eva_coralbay.leaderboard import result_files, run_files
from tests.eva_coralbay.pretraining import runs as training_runs
from tests.eva_coralbay.pretraining import scans, stores

_MODELS = ("lab/net", "lab/other")
"""The models of the results and of the runs."""


def make(name: str, folder: pathlib.Path) -> None:
    """Makes an input unless it is there.

    Args:
        name: Its name.
        folder: Where the inputs are.
    """
    if (folder / name).exists():
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = pathlib.Path(temporary, name)
        _train_apart(name, path) if name in _TRAINED else _WRITTEN[name](path)
        path.replace(folder / name)


def _train_apart(name: str, path: pathlib.Path) -> None:
    """Trains in a program of its own.

    PyTorch refuses gradients in a fork of a process that has computed some, such as one that has
    run other tests, and threads that are started here would not survive a later fork.
    """
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", __name__, name, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"the inputs of the commands cannot be made: {done.stderr}")


def _write_scans(folder: pathlib.Path) -> None:
    """Writes a scan as NIfTI, one as DICOM, and one in an archive."""
    scans.write_nifti(folder / "scan_0.nii.gz", scans.hounsfield(seed=0))
    scans.write_series(folder / "series", scans.hounsfield(seed=1))
    packed = scans.write_nifti(folder / "scan_2.nii.gz", scans.hounsfield(seed=2))
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.write(packed, packed.name)
    packed.unlink()


def _write_results(folder: pathlib.Path) -> None:
    for model in _MODELS:
        for seed in (0, 1):
            result_files.write(folder, model=model, task="openkbp_oar", kind="demo", seed=seed)


def _write_logs(folder: pathlib.Path) -> None:
    for number, model in enumerate(_MODELS):
        run_files.write(folder / f"session_{number}", model=model)


def _train_probe(folder: pathlib.Path) -> None:
    data = evaluation_runs.write_data(folder / "data")
    run = evaluation_runs.fit(data, folder / "logs", is_probe=True)
    run.parent.replace(folder / "session")


def _pretrain(folder: pathlib.Path) -> None:
    store = stores.write_store(folder / "store", cases=2)
    training_runs.train(store=store, out=str(folder / "run"), steps=1)


_WRITTEN: Mapping[str, Callable[[pathlib.Path], object]] = {
    "own": lambda folder: layouts.write_nnunet(folder, ["case_0", "case_1"]),
    "scans": _write_scans,
    "results": _write_results,
    "logs": _write_logs,
}
"""What writes an input, by its name."""

_TRAINED: Mapping[str, Callable[[pathlib.Path], object]] = {
    "probe": _train_probe,
    "pretrained": _pretrain,
}
"""What trains for an input, by its name."""

if __name__ == "__main__":
    _TRAINED[sys.argv[1]](pathlib.Path(sys.argv[2]))
