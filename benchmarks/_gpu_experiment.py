"""The experiment of the GPU benchmark: pre-trained encoders against random ones, by the probe.

`--data` holds `openkbp_oar99/` (nnU-Net raw layout, 47 scans to train and 52 to test) and, if there
is one, `openkbp_unlabelled/` (scans without labels). Encoders are pre-trained on the 47 and the
unlabeled scans, never on the 52. A job is one encoder: it is trained, exported and probed in a
process of its own, several at a time. Encoder `seed` of every recipe starts from the weights of
random encoder `seed`.

The probe is fitted to drawn voxels of 1, 2, 5, 10, 25 and 47 labeled scans and scored by the
balanced accuracy at drawn voxels of each of the 52, and, with all 47, by the Dice of all voxels.
Scans are seen in [-175, 250] HU; with all 47, also in windows that the probe was not fitted in.
"""

import argparse
import functools
import json
import multiprocessing
import os
import pathlib
import time
from concurrent import futures
from typing import Any

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

_MAPS = {"all": (0, 1, 2, 3, 4, 5), "swin": (2, 3, 4, 5), "last": (5,)}
"""Which feature maps count: those of Swin stages are map 2 and after."""

_RECIPES: dict[str, dict[str, Any]] = {
    "sharp": {
        "module": {
            "feature_size": 12,
            "num_prototypes": 1024,
            "head_dims": [512, 512, 128],
            "balance": "sinkhorn_knopp",
            "teacher_temperature": {"start": 0.02, "peak": 0.02, "end": 0.02},
            "momentum": {"start": 0.99, "peak": 0.99, "end": 1.0},
            "lr": {"start": 0.0, "peak": 0.004, "end": 1e-6, "warmup": 0.1},
            "weight_decay": {"start": 0.04, "peak": 0.04, "end": 0.4},
            "drop_path_rate": 0.0,
            "freeze_prototypes_steps": 50,
        },
        "data": {"batch_size": 64},
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
    """Returns the jobs by name, random encoders first."""
    recipes = _RECIPES
    if arguments.recipes is not None:
        recipes = json.loads(arguments.recipes.read_text())
    if arguments.toy:
        recipes = {name: _shrink(recipe) for name, recipe in recipes.items()}
    common = {"work": str(work), "device": arguments.device, "toy": arguments.toy}
    first = next(iter(recipes.values()))
    jobs = {
        f"random/{seed}": {**common, "recipe": first, "seed": seed, "steps": 0, "scales": "multi"}
        for seed in range(arguments.seeds)
    }
    for seed in range(arguments.seeds):
        for name, recipe in recipes.items():
            for scales in recipe.get("scales", ("multi", "last")):
                if seed < recipe.get("seeds", arguments.seeds):
                    job = {"recipe": recipe, "seed": seed, "scales": scales}
                    steps = recipe.get("steps", arguments.steps)
                    jobs[f"{name}/{scales}/{seed}"] = {**common, **job, "steps": steps}
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
    """Trains an encoder, exports it, and probes it."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    module, curve = _pretrain(job)
    trained = time.perf_counter()
    encoder = module.teacher.encoder.eval().to(job["device"])
    encoder.out_indices = 6
    scores = _probe(encoder, job)
    if job["steps"] and not job["toy"]:
        _export(module, job)
    return {
        "seed": job["seed"],
        "scales": job["scales"],
        "steps": job["steps"],
        "recipe": job["recipe"],
        "curve": curve,
        "seconds": {"train": trained - started, "probe": time.perf_counter() - trained},
        **scores,
    }


def _pretrain(job: dict[str, Any]) -> tuple[Any, list[dict[str, float]]]:
    """Trains; returns the module and what its steps came to."""
    from torch.utils import data as torch_data

    from eva_coralbay.pretraining import Distillation, PretrainingData, plain_loop, samples
    from eva_coralbay.pretraining.masking import Masking
    from eva_coralbay.pretraining.schedules import Schedule
    from eva_coralbay.pretraining.views import Views

    options = dict(job["recipe"]["module"])
    for key, value in options.items():
        if isinstance(value, dict):
            options[key] = Masking(**value) if key == "masking" else Schedule(**value)
    sizes = Views(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in job["recipe"]["views"].items()
        }
    )
    module = Distillation(**options, scales=job["scales"], seed=job["seed"])
    data_options = dict(job["recipe"]["data"])
    batch_size = data_options.pop("batch_size")
    data = PretrainingData(
        store=f"{job['work']}/store",
        views=sizes,
        batch_size=batch_size,
        seed=job["seed"],
        **data_options,
    )
    module.build(num_scans=len(data.cases), batch_size=batch_size)
    steps = job["steps"]
    if not steps:
        return module, []
    loop = plain_loop.PlainLoop(
        module,
        views=sizes,
        batch_size=batch_size,
        steps=steps,
        device=job["device"],
        dtype=torch.float32 if job["toy"] else torch.bfloat16,
    )
    loop.start(data.probe_batch(16))
    warmup = round(data.augmentation_warmup * steps * batch_size)
    batches = samples._Batches(  # the loader of a training asks a trainer for rank and step
        data.regions(full_augmentation_from=warmup), batch_size, rank=0, world_size=1, first=0
    )
    loader = torch_data.DataLoader(
        batches,
        batch_size=None,
        num_workers=0 if job["toy"] else 2,
        prefetch_factor=None if job["toy"] else 4,
    )
    curve = []
    for values in loop.run(iter(loader)):
        if loop.step_number % max(1, steps // 50) == 0 or loop.step_number <= 3:
            row = {name: round(float(value), 4) for name, value in values.items()}
            curve.append({"step": loop.step_number, **row})
    return module, curve


def _export(module: Any, job: dict[str, Any]) -> None:
    """Saves the teacher's encoder, half precision, so that it can be carried home."""
    from safetensors import torch as safetensors_torch

    state = module.teacher.encoder.state_dict()
    path = pathlib.Path(job["work"]) / "encoders"
    path.mkdir(exist_ok=True)
    name = f"{job['recipe'].get('name', 'encoder')}_{job['scales']}_{job['seed']}.safetensors"
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    safetensors_torch.save_file(tensors, str(path / name))


def _probe(encoder: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Fits the probe to the training scans and scores it on the others."""
    from eva_coralbay.evaluation.probe import classifier, scans, subsets, sums

    content = torch.load(f"{job['work']}/scans.pt", weights_only=True)
    sliding = scans.Sliding((40, 40, 40) if job["toy"] else (96, 96, 96), 0.25)
    device = job["device"]
    n_classes = 1 + max(int(scan["mask"].max()) for scan in content.values())

    def look(name: str, window: str) -> sums.Samples:
        lower, upper = _WINDOWS[window]
        image = content[name]["hu"].to(device).float()
        tensor = ((image - lower) / (upper - lower)).clamp_(0.0, 1.0)
        draw = sums.draw_voxels(content[name]["mask"][0], name, n_classes=n_classes)
        return scans.sample_case(encoder, tensor, draw, sliding=sliding)

    train = sorted(name for name in content if content[name]["split"] == "train")
    test = sorted(name for name in content if content[name]["split"] == "val")
    first = next(iter(_WINDOWS))
    seen = {name: look(name, first) for name in train}
    looked = {name: look(name, first) for name in test}
    scores: dict[str, Any] = {"curves": {}, "windows": {}, "dice": {}}
    fitted = {}
    for maps, indices in _MAPS.items():
        chosen = {name: each.select(indices) for name, each in seen.items()}
        parts = {name: sums.Sums.of(each) for name, each in chosen.items()}
        targets = {name: each.select(indices) for name, each in looked.items()}
        scores["curves"][maps] = {}
        for subset in subsets.draw("openkbp", train):
            names = subset.cases
            fit = classifier.fit(
                [chosen[name] for name in names], [parts[name] for name in names], maps=indices
            )
            accuracies = [_balanced_accuracy(fit, targets[name]) for name in test]
            scores["curves"][maps].setdefault(str(subset.size), []).append(accuracies)
        fitted[maps] = fit
    for window in list(_WINDOWS)[1:]:
        others = {name: look(name, window) for name in test}
        for maps, indices in _MAPS.items():
            values = [
                _balanced_accuracy(fitted[maps], others[name].select(indices)) for name in test
            ]
            scores["windows"].setdefault(maps, {})[window] = values
    scores["dice"] = _score_dice(encoder, fitted, content, test, sliding, device)
    scores["cases"] = test
    return scores


def _balanced_accuracy(fit: Any, samples: Any) -> float:
    """Returns the mean recall of the classes of a case, at its drawn voxels, without prior."""
    logits = samples.features.double() @ fit.weights.T + fit.bias
    n_classes = len(fit.bias)
    hits = (logits.argmax(dim=1) == samples.labels).double()
    counts = torch.bincount(samples.labels, minlength=n_classes).double()
    found = torch.bincount(samples.labels, weights=hits, minlength=n_classes)
    return round(float((found / counts)[counts > 0].mean()), 5)


def _score_dice(
    encoder: Any,
    fitted: dict[str, Any],
    content: dict[str, Any],
    test: list[str],
    sliding: Any,
    device: str,
) -> dict[str, list[list[float]]]:
    """Returns the Dice of each class of each scored scan, on the grid of the probe."""
    from eva_coralbay.evaluation.probe import scans

    lower, upper = next(iter(_WINDOWS.values()))
    dice: dict[str, list[list[float]]] = {maps: [] for maps in fitted}
    for name in test:
        image = content[name]["hu"].to(device).float()
        tensor = ((image - lower) / (upper - lower)).clamp_(0.0, 1.0)
        truth = content[name]["mask"][0].to(device).long()
        for maps, fit in fitted.items():
            n_classes = len(fit.bias)
            labels = scans.label_scan(encoder, tensor, [fit], sliding=sliding)[0].long()
            joint = torch.bincount((truth * n_classes + labels).flatten(), minlength=n_classes**2)
            confusion = joint.view(n_classes, n_classes).double()
            both, total = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
            values = (2.0 * both / total)[1:]
            dice[maps].append([round(float(value), 5) for value in values])
    return dice


def _summarize(name: str, result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"{name}: FAILED {result['failed']}"
    parts = []
    for maps, curve in result["curves"].items():
        values = " ".join(f"{size}:{np.mean(accuracies):.3f}" for size, accuracies in curve.items())
        parts.append(f"{maps} [{values}] dice {np.mean(result['dice'][maps]):.3f}")
    first, last = result["curve"][:1], result["curve"][-1:]
    losses = f" kl {first[0]['kl']} -> {last[0]['kl']}" if first else ""
    seconds = "/".join(f"{value:.0f}" for value in result["seconds"].values())
    return f"{name}: {'; '.join(parts)}{losses} ({seconds} s)"


def _prepare(data: pathlib.Path, work: pathlib.Path, *, workers: int) -> None:
    """Prepares the store of the pre-training, and all labeled scans in memory."""
    if (work / "scans.pt").exists():
        return
    from eva_coralbay.data import datasets
    from eva_coralbay.pretraining.intake import preparation as intake

    content = {}
    root = data / "openkbp_oar99"
    context = multiprocessing.get_context("spawn")
    sources = work / "sources"
    sources.mkdir(exist_ok=True)
    with futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {}
        for split in ("train", "val"):
            dataset = datasets.NnUNet(str(root), split, prepared=False)
            dataset.setup()
            for index, case in enumerate(dataset.case_ids):
                read = functools.partial(_read_scan, str(root), split, index)
                waiting[case] = (split, pool.submit(read))
                if split == "train":
                    path = pathlib.Path(dataset.filename(index))
                    target = sources / path.name
                    if not target.exists():
                        os.symlink((root / path).absolute(), target)
        for case, (split, read) in waiting.items():
            hounsfield, mask = read.result()
            content[case] = {
                "split": split,
                "hu": torch.from_numpy(hounsfield),
                "mask": torch.from_numpy(mask),
            }
    torch.save(content, work / "scans.pt")
    unlabeled = data / "openkbp_unlabelled"
    folders = [str(sources), *([str(unlabeled)] if unlabeled.is_dir() else [])]
    intake.prepare(folders, str(work / "store"), spacing=_SPACING, workers=workers)


def _read_scan(root: str, split: str, index: int) -> tuple[Any, Any]:
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
