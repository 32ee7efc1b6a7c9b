"""What the commands that are killed read, and where they run.

It takes seconds to make, so all processes of the campaign share it.
"""

import os
import pathlib
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Mapping

import torch

from tests.eva_coralbay.data.datasets import layouts
from tests.eva_coralbay.inference import runs as evaluation_runs
from tests.eva_coralbay.leaderboard import result_files, run_files
from tests.eva_coralbay.pretraining import runs as training_runs
from tests.eva_coralbay.pretraining import scans, stores

_TEMPORARY = tempfile.TemporaryDirectory(prefix="fuzz-kills-")

FOLDER = pathlib.Path(_TEMPORARY.name).resolve()
"""The folder of all that is shared, which is removed as the campaign ends."""

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
        _run_apart(lambda: _INPUTS[name](path))
        path.replace(folder / name)


def _run_apart(function: Callable[[], object]) -> None:
    """Calls a function in a process of its own, whose threads would not survive a later fork."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        raise AssertionError("the inputs of the commands cannot be made")


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


_INPUTS: Mapping[str, Callable[[pathlib.Path], object]] = {
    "own": lambda folder: layouts.write_nnunet(folder, ["case_0", "case_1"]),
    "scans": _write_scans,
    "results": _write_results,
    "logs": _write_logs,
    "probe": _train_probe,
    "pretrained": _pretrain,
}
"""What makes each input, by its name."""
