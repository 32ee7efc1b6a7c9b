"""The experiment of the GPU benchmark: pre-trained encoders against random ones, by the probe.

`--data` holds `openkbp_oar99/` (nnU-Net raw layout, 47 scans to train and 52 to test) and, if there
is one, `openkbp_unlabelled/` (scans without labels). Encoders are pre-trained on the 47 and the
unlabeled scans, never on the 52. A job is one encoder: it is trained, saved and probed in a process
of its own, several at a time. Encoder `seed` of every recipe starts from the weights of random
encoder `seed`.

A recipe may say after how many samples its encoder is probed as well (`samples_seen`), and after
how many seconds a training ends (`seconds`).

The probe is fitted to drawn voxels of 1, 2, 5, 10, 25 and 47 labeled scans and scored by the
balanced accuracy at drawn voxels of each of the 52. Its prior is that of equal classes; its
shrinkage is chosen by leaving out each labeled scan once. Scans are seen in [-175, 250] HU and, for
the first seeds, with all 47 also in windows that the probe was not fitted in.
"""

import argparse
import copy
import json
import multiprocessing
import pathlib
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any, Literal

import numpy as np
import torch

_SPACING = (3.0, 3.0, 3.0)
_WINDOWS = {
    "soft tissue": (-175.0, 250.0),
    "lung": (-1350.0, 150.0),
    "bone": (-500.0, 1300.0),
    "wide": (-1000.0, 1000.0),
}
"""HU windows (lower, upper); the probe is fitted in the first."""

_OTHER_WINDOWS = ("lung", "bone", "wide")
"""The windows that the probe is scored in, too."""

_MULTIPLE = 8
"""What the edges of a window are a multiple of, in voxels: each scan is one window."""

_MIN_EDGE = 40
"""The smallest edge of a window in voxels."""

_SHRINKAGES = (0.01, 0.1, 0.3, 0.6, 0.9)
"""The strengths of the probe to choose from."""

_TRAINING_SECONDS = 90.0
"""After how many seconds a training ends early on a GPU that is lent for minutes."""

_MAPS = {"all": (0, 1, 2, 3, 4, 5), "swin": (2, 3, 4, 5), "last": (5,)}
"""Which feature maps count: those of Swin stages are map 2 and after."""

_RECIPES: dict[str, dict[str, Any]] = {
    "sharp": {
        "module": {
            "feature_size": 12,
            "num_prototypes": 256,
            "head_dims": [512, 512, 128],
            "balance": "sinkhorn_knopp",
            "queue_size": 256,
            "teacher_temperature": {"start": 0.01, "peak": 0.01, "end": 0.01},
            "momentum": {"start": 0.99, "peak": 0.99, "end": 1.0},
            "lr": {"start": 0.0, "peak": 0.004, "end": 1e-6, "warmup": 0.1},
            "weight_decay": {"start": 0.04, "peak": 0.04, "end": 0.4},
            "drop_path_rate": 0.0,
            "freeze_prototypes_steps": 30,
        },
        "data": {"batch_size": 64, "augmentation_warmup": 0.3},
        "views": {
            "global_size": 42,
            "local_size": 33,
            "num_locals": 4,
            "global_edge": [40, 64],
            "local_edge": [24, 40],
            "region_size": 72,
        },
    }
}
"""The recipe that is run unless `--recipes` names others."""


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and probes all encoders; the scores of each are in the report."""
    work = pathlib.Path(arguments.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    data = arguments.data or _write_toy_data(work)
    _prepare(pathlib.Path(data), work, workers=1 if arguments.toy else 14)
    jobs = _list_jobs(arguments, work)
    context = multiprocessing.get_context("spawn")
    results: dict[str, Any] = {}
    with futures.ProcessPoolExecutor(arguments.parallel, mp_context=context) as pool:
        waiting = {pool.submit(_run_job, job): name for name, job in jobs.items()}
        for done in futures.as_completed(waiting):
            name = waiting[done]
            try:
                results[name] = done.result()
            except Exception as error:  # an attempt that fails is reported like all others
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
            print(_summarize(name, results[name]), flush=True)
            (work / "experiment.json").write_text(json.dumps(results))
    return {"results": results}


def _list_jobs(arguments: argparse.Namespace, work: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the jobs by name, those that train first."""
    recipes = _RECIPES
    if arguments.recipes is not None:
        recipes = json.loads(arguments.recipes.read_text())
    if arguments.toy:
        recipes = {name: _shrink(recipe) for name, recipe in recipes.items()}
    common = {"work": str(work), "device": arguments.device, "toy": arguments.toy}
    first = next(iter(recipes.values()))
    jobs: dict[str, dict[str, Any]] = {}
    for seed in range(arguments.seeds):
        for name, recipe in recipes.items():
            for scales in recipe.get("scales", ("multi", "last")):
                if seed < recipe.get("seeds", arguments.seeds):
                    job = {"recipe": recipe, "seed": seed, "scales": scales}
                    steps = recipe.get("steps", arguments.steps)
                    jobs[f"{name}/{scales}/{seed}"] = {**common, **job, "steps": steps}
    for seed in range(arguments.seeds):
        job = {"recipe": first, "seed": seed, "steps": 0, "scales": "multi"}
        jobs[f"random/{seed}"] = {**common, **job}
    for name, job in jobs.items():
        job["name"] = name
    return jobs


def _shrink(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe that a CPU does steps of in seconds."""
    small = {"global_size": 36, "local_size": 33, "num_locals": 1}
    return {
        **recipe,
        "data": {**recipe["data"], "batch_size": 2},
        "views": {**recipe["views"], **small},
    }


def _run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Trains an encoder, saves it, and probes it."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    module, curve, snapshots = _pretrain(job)
    trained = time.perf_counter()
    encoder = module.teacher.encoder.eval().to(job["device"])
    _save(encoder, job)
    encoder.out_indices = 6
    return {
        "seed": job["seed"],
        "scales": job["scales"],
        "recipe": job["recipe"],
        "curve": curve,
        "seconds": {"train": trained - started, "probe": time.perf_counter() - trained},
        **_probe(encoder, job, windows=_OTHER_WINDOWS if job["seed"] == 0 else ()),
        "snapshots": {
            seen: _probe(each, job, windows=())["curves"] for seen, each in snapshots.items()
        },
    }


def _pretrain(job: dict[str, Any]) -> tuple[Any, list[dict[str, float]], dict[int, Any]]:
    """Trains; returns the module, what its steps came to, and encoders by samples seen."""
    import _in_memory
    from torch.utils import data as torch_data

    from eva_coralbay.pretraining import Distillation, plain_loop, samples
    from eva_coralbay.pretraining.masking import Masking
    from eva_coralbay.pretraining.schedules import Schedule
    from eva_coralbay.pretraining.views import Views

    options = dict(job["recipe"]["module"])
    for key, value in options.items():
        if isinstance(value, dict):
            options[key] = Masking(**value) if key == "masking" else Schedule(**value)
    edges: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in job["recipe"]["views"].items()
    }
    sizes = Views(**edges)
    module = Distillation(**options, scales=job["scales"], seed=job["seed"])
    data_options = dict(job["recipe"]["data"])
    batch_size = data_options.pop("batch_size")
    content = torch.load(f"{job['work']}/scans.pt", weights_only=True, mmap=True)
    known = {name: scan["hu"] for name, scan in content.items() if scan["split"] != "val"}
    data = _in_memory.data_of(
        known, sizes, _SPACING, batch_size=batch_size, seed=job["seed"], **data_options
    )
    module.build(num_scans=len(data.cases), batch_size=batch_size)
    steps = job["steps"]
    if not steps:
        return module, [], {}
    loop = plain_loop.PlainLoop(
        module,
        views=sizes,
        batch_size=batch_size,
        steps=steps,
        device=job["device"],
        dtype=torch.float32 if job["device"] == "cpu" else torch.bfloat16,
    )
    loop.start(data.probe_batch(16))
    warmup = round(data.augmentation_warmup * steps * batch_size)
    batches = samples._Batches(  # the loader of a training asks a trainer for rank and step
        data.regions(full_augmentation_from=warmup), batch_size, rank=0, world_size=1, first=0
    )
    loader = torch_data.DataLoader(
        batches,
        batch_size=None,
        num_workers=0 if job["toy"] else 1,
        prefetch_factor=None if job["toy"] else 4,
    )
    curve: list[dict[str, float]] = []
    snapshots: dict[int, Any] = {}
    limit = job["recipe"].get("seconds", _TRAINING_SECONDS)
    started = time.perf_counter()
    for values in loop.run(iter(loader)):
        spent = time.perf_counter() - started
        ends = loop.step_number == steps or spent > limit
        if loop.step_number % max(1, steps // 50) == 0 or loop.step_number <= 3 or ends:
            row = {name: round(float(value), 4) for name, value in values.items()}
            curve.append({"step": loop.step_number, "seconds": round(spent, 1), **row})
        seen = loop.step_number * batch_size
        if seen in job["recipe"].get("samples_seen", ()):
            snapshots[seen] = _snapshot(module, {**job, "name": f"{job['name']}_{seen}"})
        if ends:
            break
    return module, curve, snapshots


def _snapshot(module: Any, job: dict[str, Any]) -> Any:
    """Saves the encoder as it is at a step, and returns a copy of it to be probed."""
    encoder = copy.deepcopy(module.teacher.encoder).eval()
    _save(encoder, job)
    encoder.out_indices = 6
    return encoder


def _save(encoder: Any, job: dict[str, Any]) -> None:
    """Saves an encoder in half precision, small enough to be carried home."""
    from safetensors import torch as safetensors_torch

    folder = pathlib.Path(job["work"]) / "encoders"
    folder.mkdir(exist_ok=True)
    name = f"{job['name'].replace('/', '_')}.safetensors"
    tensors = {
        key: value.half() if value.is_floating_point() else value
        for key, value in encoder.state_dict().items()
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    safetensors_torch.save_file(tensors, str(folder / name))


def _probe(encoder: Any, job: dict[str, Any], *, windows: Sequence[str]) -> dict[str, Any]:
    """Fits the probe to the labeled scans and scores it on the others, and in other windows."""
    from eva_coralbay.evaluation.probe import scans, subsets, sums

    content = torch.load(f"{job['work']}/scans.pt", weights_only=True, mmap=True)
    labeled = {name: scan for name, scan in content.items() if scan["mask"] is not None}
    n_classes = 1 + max(int(scan["mask"].max()) for scan in labeled.values())
    drawn = {
        name: sums.draw_voxels(scan["mask"][0], name, n_classes=n_classes)
        for name, scan in labeled.items()
    }

    def look(name: str, window: str) -> sums.Samples:
        lower, upper = _WINDOWS[window]
        image = labeled[name]["hu"].to(job["device"]).float()
        tensor = ((image - lower) / (upper - lower)).clamp_(0.0, 1.0)
        edges = (max(_MIN_EDGE, -(-edge // _MULTIPLE) * _MULTIPLE) for edge in tensor.shape[1:])
        depth, height, width = edges
        sliding = scans.Sliding((depth, height, width))
        return scans.sample_case(encoder, tensor, drawn[name], sliding=sliding)

    train = sorted(name for name in labeled if labeled[name]["split"] == "train")
    test = sorted(name for name in labeled if labeled[name]["split"] == "val")
    seen = {name: look(name, "soft tissue") for name in (*train, *test)}
    curves: dict[str, Any] = {}
    in_windows: dict[str, Any] = {}
    fitted: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for maps, indices in _MAPS.items():
        chosen = {name: each.select(indices) for name, each in seen.items()}
        curves[maps] = {}
        for subset in subsets.draw("openkbp", train):
            fitted[maps] = _fit([chosen[name] for name in subset.cases])
            accuracies = [_balanced_accuracy(*fitted[maps], chosen[name]) for name in test]
            curves[maps].setdefault(str(subset.size), []).append(accuracies)
    for window in windows:
        looked = {name: look(name, window) for name in test}
        for maps, indices in _MAPS.items():
            in_windows.setdefault(maps, {})[window] = [
                _balanced_accuracy(*fitted[maps], looked[name].select(indices)) for name in test
            ]
    return {"curves": curves, "windows": in_windows, "cases": test}


def _fit(chosen: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits a classifier of equal priors; returns weights and biases."""
    from eva_coralbay.evaluation.probe import classifier, sums

    strengths = [classifier.Strength(shrinkage, 0.0) for shrinkage in _SHRINKAGES]
    parts = [sums.Sums.of(each) for each in chosen]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    best = 2
    if len(parts) > 1:
        accuracies = torch.zeros(len(strengths))
        for each, part in zip(chosen, parts, strict=True):
            weights, biases = classifier.solve(total - part, strengths)
            accuracies += torch.tensor(
                [
                    _balanced_accuracy(weight, bias, each)
                    for weight, bias in zip(weights, biases, strict=True)
                ]
            )
        best = int(accuracies.argmax())
    weights, biases = classifier.solve(total, strengths[best : best + 1])
    return weights[0], biases[0]


def _balanced_accuracy(weights: torch.Tensor, bias: torch.Tensor, samples: Any) -> float:
    """Returns the mean recall of the classes of a case, at its drawn voxels."""
    logits = samples.features.double() @ weights.T + bias
    hits = (logits.argmax(dim=1) == samples.labels).double()
    counts = torch.bincount(samples.labels, minlength=len(bias)).double()
    found = torch.bincount(samples.labels, weights=hits, minlength=len(bias))
    return round(float((found / counts)[counts > 0].mean()), 5)


def _summarize(name: str, result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"{name}: FAILED {result['failed']}"
    parts = []
    for maps, curve in result["curves"].items():
        values = " ".join(f"{size}:{np.mean(accuracies):.3f}" for size, accuracies in curve.items())
        parts.append(f"{maps} [{values}]")
    first, last = result["curve"][:1], result["curve"][-1:]
    losses = ""
    if first:
        losses = f" kl {first[0]['kl']} -> {last[0]['kl']} at step {last[0]['step']}"
    seconds = "/".join(f"{value:.0f}" for value in result["seconds"].values())
    return f"{name}: {'; '.join(parts)}{losses} ({seconds} s)"


def _prepare(data: pathlib.Path, work: pathlib.Path, *, workers: int) -> None:
    """Prepares all scans in memory, and saves them in a file."""
    if (work / "scans.pt").exists():
        return
    from eva_coralbay.data import datasets

    root = data / "openkbp_oar99"
    context = multiprocessing.get_context("spawn")
    content = {}
    with futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {}
        for split in ("train", "val"):
            dataset = datasets.NnUNet(str(root), split, prepared=False)
            dataset.setup()
            for index, case in enumerate(dataset.case_ids):
                waiting[case] = split, pool.submit(_read_labeled, str(root), split, index)
        for path in sorted((data / "openkbp_unlabelled").glob("*.nii*")):
            waiting[path.name] = "unlabeled", pool.submit(_read_unlabeled, str(path))
        for case, (split, read) in waiting.items():
            hounsfield, mask = read.result()
            content[case] = {"split": split, "hu": torch.from_numpy(hounsfield), "mask": None}
            if mask is not None:
                content[case]["mask"] = torch.from_numpy(mask)
    torch.save(content, work / "scans.pt.part")
    (work / "scans.pt.part").rename(work / "scans.pt")


def _read_labeled(root: str, split: Literal["train", "val"], index: int) -> tuple[Any, Any]:
    """Reads and prepares a labeled scan: HU (int16) and labels (uint8), both [1, D, H, W]."""
    from eva_coralbay.data import datasets, preparation

    torch.set_num_threads(1)
    dataset = datasets.NnUNet(root, split, prepared=False)
    dataset.setup()
    scan = preparation.prepare(
        dataset.load_data(index), dataset.load_target(index), preparation.Preparation(_SPACING)
    )
    image = scan.read_image(scan.whole).round().to(torch.int16)
    return image.numpy(), scan.read_mask(scan.whole).to(torch.uint8).numpy()


def _read_unlabeled(path: str) -> tuple[Any, None]:
    """Reads and prepares a scan without labels."""
    from eva_coralbay.data import nifti, preparation

    torch.set_num_threads(1)
    volume = nifti.read_scan(path, case=path)
    scan = preparation.prepare(volume, None, preparation.Preparation(_SPACING))
    return scan.read_image(scan.whole).round().to(torch.int16).numpy(), None


def _write_toy_data(work: pathlib.Path) -> pathlib.Path:
    """Writes phantoms in place of the real CT."""
    from eva_coralbay.data import phantom

    phantom.write_dataset(
        str(work / "toy" / "openkbp_oar99"),
        cases=4,
        val_cases=2,
        shape=(48, 48, 48),
        spacing_mm=(4.0, 4.0, 4.0),
    )
    return work / "toy"
