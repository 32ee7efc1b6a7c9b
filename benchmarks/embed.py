"""Compares `eva-coralbay embed` with a plain loop of MONAI's transforms, in scans an hour.

Both embed the same scans, generated or named by `--source`, in windows of the same number, with the
same random weights in float32: ours in CoralBay's network, the loop in eva's `SwinUNETREncoder`,
which is made of MONAI's blocks. Ours does what the command does: it checks the scans, hashes the
files and writes the table. The loop is what one writes with MONAI: load, orient, space, scale,
crop, windows, mean. Times are interleaved, round by round; ratios are medians over rounds. The
first round loads the code and does not count.

`--same-network` takes CoralBay's network for both, and `--tiny` an encoder that needs no time: what
is left bounds a fast GPU. `--memory N` embeds N small scans with a small network and prints the
memory of the process on the way.
"""

import argparse
import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import _machine
import numpy as np
import psutil
import torch
from eva.vision.models.networks.backbones.radiology import SwinUNETREncoder
from loguru import logger
from monai import inferers, transforms
from pyarrow import parquet
from torch import nn

from eva_coralbay.data import nifti_image, phantom
from eva_coralbay.inference import embedding_job
from eva_coralbay.models.encoder import CoralBayEncoder

_SHAPE, _SPACING_MM = (64, 256, 256), (3.0, 1.0, 1.0)
"""A scan: 192 x 256 x 256 mm."""

_SMALL_SHAPE, _SMALL_SPACING_MM = (24, 48, 48), (12.0, 7.0, 7.0)
"""A scan of `--memory`."""

_SPACING = (1.5, 1.5, 1.5)
_HU_WINDOW = (-175.0, 250.0)
_WINDOW = (96, 96, 96)
_EVERY = 50
"""How many scans lie between two looks at the memory."""


class _Time(NamedTuple):
    """What a round takes."""

    seconds: float
    """By the clock."""

    busy: float
    """Of CPU time of this process, which hardly depends on what else the machine does."""


def _write_scans(
    folder: pathlib.Path,
    count: int,
    *,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> list[pathlib.Path]:
    """Writes phantoms as `.nii.gz`: copies of a few, as drawing one takes long."""
    folder.mkdir()
    drawn = []
    for seed in range(min(count, 3)):
        generated = phantom.generate(seed, shape=shape, spacing_mm=spacing_mm)
        image = nifti_image.as_nifti(generated.hounsfield, generated.affine)
        path = folder / f"scan_{seed:04d}.nii.gz"
        image.to_filename(path)
        drawn.append(path.read_bytes())
    paths = [folder / f"scan_{number:04d}.nii.gz" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(drawn[number % len(drawn)])
    return paths


def _embed_ours(
    paths: Sequence[pathlib.Path], encoder: nn.Module, out: pathlib.Path, device: str, workers: int
) -> int:
    """Returns the number of windows."""
    report = embedding_job.embed_scans(
        [str(path) for path in paths],
        out,
        lambda: encoder,
        model="random",
        workers=workers,
        devices=[device],
    )
    if report.failures:
        raise RuntimeError(f"Scans were left out: {report.failures}")
    return sum(parquet.read_table(out, columns=["windows"])["windows"].to_pylist())


@torch.inference_mode()
def _embed_monai(
    paths: Sequence[pathlib.Path], encoder: nn.Module, out: pathlib.Path, device: str
) -> int:
    """Returns the number of windows."""
    prepare = transforms.Compose(
        [
            transforms.LoadImage(image_only=True, ensure_channel_first=True),
            transforms.Orientation(axcodes="SPL"),
            transforms.Spacing(pixdim=_SPACING),
            transforms.ScaleIntensityRange(*_HU_WINDOW, 0.0, 1.0, clip=True),
            transforms.CropForeground(),
        ]
    )
    batch = 4 if device.startswith("cuda") else 1
    splitter = inferers.SlidingWindowSplitter(_WINDOW, overlap=0.0, pad_mode="constant")
    encoder = encoder.to(device)
    rows, number = [], 0
    for path in paths:
        image = torch.as_tensor(prepare(path)).as_subclass(torch.Tensor)[None]
        windows = [part for part, _ in splitter(image)]
        parts = [
            encoder(torch.cat(windows[first : first + batch]).to(device)).cpu()
            for first in range(0, len(windows), batch)
        ]
        rows.append(torch.cat(parts).mean(dim=0).numpy())
        number += len(windows)
    np.save(out, np.stack(rows))
    return number


@torch.inference_mode()
def _build_encoders(arguments: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Returns our encoder and the loop's, which have the same weights."""
    if arguments.tiny:
        tiny = nn.Sequential(nn.AvgPool3d(96), nn.Flatten()).eval()
        return tiny, tiny
    ours = CoralBayEncoder(feature_size=arguments.feature_size).eval()
    if arguments.same_network:
        return ours, ours
    theirs = SwinUNETREncoder(feature_size=arguments.feature_size).eval()
    theirs.load_state_dict(ours.state_dict())
    window = torch.rand(1, 1, 64, 64, 64)
    difference = (ours(window) - theirs(window)).abs().max().item()
    print(f"largest difference of the two networks' embeddings of a window: {difference:.1e}")
    return ours, theirs


def _compare(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    encoder, theirs_encoder = _build_encoders(arguments)
    paths = arguments.source or _write_scans(
        folder / "scans", arguments.scans, shape=tuple(arguments.shape), spacing_mm=_SPACING_MM
    )
    sides: dict[str, Callable[[pathlib.Path], int]] = {
        "ours": lambda out: _embed_ours(paths, encoder, out, arguments.device, arguments.workers),
        "MONAI loop": lambda out: _embed_monai(paths, theirs_encoder, out, arguments.device),
    }
    times: dict[str, list[_Time]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):  # the first one loads the code
        for name, embed in sides.items():
            taken, windows = _time(embed, folder / f"{number}_{name}.npy")
            times[name].append(taken)
            print(
                f"round {number}: {name} {taken.seconds:.2f} s, {taken.busy:.2f} s of CPU, "
                f"{windows} windows",
                flush=True,
            )
    for name, taken in times.items():
        rate = 3600 * len(paths) / statistics.median(one.seconds for one in taken[1:])
        print(f"{name}: {rate:,.0f} scans an hour")
    for index, what in enumerate(("ratio", "ratio of the CPU time, if --workers is 1")):
        pairs = zip(times["ours"][1:], times["MONAI loop"][1:], strict=True)
        ratios = [theirs[index] / ours[index] for ours, theirs in pairs]
        print(f"{what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def _time(embed: Callable[[pathlib.Path], int], out: pathlib.Path) -> tuple[_Time, int]:
    """Returns what it takes to embed all scans, and the number of windows."""
    started, busy = time.perf_counter(), time.process_time()
    result = embed(out)
    return _Time(time.perf_counter() - started, time.process_time() - busy), result


def _follow_memory(count: int, folder: pathlib.Path) -> None:
    """Prints the memory of the process every few scans, of one call."""
    process, seen = psutil.Process(), 0

    class Watched(CoralBayEncoder):
        def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            seen += 1
            if seen % _EVERY == 0:
                now = process.memory_info().rss / 2**20
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
                print(f"{seen} scans: {now:.0f} MiB, at most {peak:.0f} MiB", flush=True)
            return super().forward_embeddings(tensor)

    encoder = Watched(feature_size=12).eval()
    paths = _write_scans(folder / "small", count, shape=_SMALL_SHAPE, spacing_mm=_SMALL_SPACING_MM)
    embedding_job.embed_scans(
        [str(path.parent) for path in paths[:1]],
        folder / "small.parquet",
        lambda: encoder,
        model="random",
        spacing=(10.0, 10.0, 10.0),
        window=(40, 40, 40),
        workers=1,
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--feature-size", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", type=int, nargs=3, default=_SHAPE, help="of generated scans")
    parser.add_argument("--source", type=pathlib.Path, nargs="+", help="NIfTI files to embed")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--same-network", action="store_true")
    parser.add_argument("--memory", type=int, metavar="N")
    arguments = parser.parse_args()
    logger.remove()
    print(f"{_machine.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.memory:
            _follow_memory(arguments.memory, pathlib.Path(folder))
        else:
            _compare(arguments, pathlib.Path(folder))


if __name__ == "__main__":
    main()
