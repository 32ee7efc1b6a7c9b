"""Says what an experiment shows: pre-trained encoders against random ones, from its JSON file.

The file is that of `benchmarks/gpu.py --sections experiment --out FILE`, or its `results` alone.
Encoder `seed` of a recipe is compared with random encoder `seed`, whose weights it started from, on
the same test scans. The difference at a number of labeled scans is that of the balanced accuracy,
averaged over the draws of these scans; `area` is the mean over the numbers of scans. A loss is the
accuracy with all labels in the HU window of the fit less that in another window. Samples seen are
those of one training, whose encoder was probed on the way. Intervals of 95 % are percentiles of a
bootstrap over test scans and, where there are several, over seeds, which is too narrow for few
seeds. Below are differences of the mean area by t-tests in which every
encoder is one value: Welch's, and that of pairs of one seed, which start from the same weights.
"""

import argparse
import itertools
import json
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

_RESAMPLES = 4000


def main() -> None:
    """Prints a table in Markdown for each choice of feature maps."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n"
        "  python benchmarks/evidence.py gpu.json\n"
        "  python benchmarks/evidence.py small.json --samples-seen 3200 6400",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=pathlib.Path, help="the JSON file of the experiment")
    parser.add_argument(
        "--samples-seen",
        metavar="N",
        type=int,
        nargs="+",
        default=[],
        help="compare the encoders as they were after N samples, too, each N as a recipe",
    )
    arguments = parser.parse_args()
    content = json.loads(arguments.file.read_text())
    results = content.get("experiment", content).get("results", content)
    results = {**_take_snapshots(results, arguments.samples_seen), **results}
    for maps in ("all", "swin", "last"):
        _print_table(results, maps)
        _print_windows(results, maps)
        _print_samples(results, maps)


def _take_snapshots(results: dict[str, Any], samples_seen: list[int]) -> dict[str, Any]:
    """Returns the encoders as they were on the way as results of recipes of their own."""
    taken = {}
    for seen in samples_seen:
        for name, result in results.items():
            recipe, _, seed = name.rpartition("/")
            curves = result.get("snapshots", {}).get(str(seen))
            if curves is not None:
                taken[f"{recipe} at {seen:,}/{seed}"] = {"curves": curves}
    return taken


def _print_table(results: dict[str, Any], maps: str) -> None:
    """Prints the random encoders' accuracy, and the differences of each recipe."""
    runs = _group(results, maps)
    sizes = list(next(iter(runs["random"].values())))
    columns = [*sizes, "area"]
    print(
        f"\nmaps: {maps}\n\n| | seeds | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}"
    )
    random = [_columns(curve) for curve in runs["random"].values()]
    means = np.mean([curve.mean(axis=1) for curve in random], axis=0)
    print(f"| random | {len(random)} | {' | '.join(f'{value:.3f}' for value in means)} |")
    for name, curves in runs.items():
        seeds = [seed for seed in curves if seed in runs["random"]]
        if name == "random" or not seeds:
            continue
        pairs = [_columns(curves[seed]) - _columns(runs["random"][seed]) for seed in seeds]
        cells = _describe(np.stack(pairs))
        print(f"| {name} less random | {len(seeds)} | {' | '.join(cells)} |")
    areas = {
        name: {seed: float(_columns(curve)[-1].mean()) for seed, curve in curves.items()}
        for name, curves in runs.items()
    }
    _print_areas(areas)
    for name, by_seed in areas.items():
        values = [by_seed[seed] for seed in sorted(by_seed)]
        spread = f", sd {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        print(f"\narea of {name}: {', '.join(f'{value:.3f}' for value in values)}{spread}")


def _print_windows(results: dict[str, Any], maps: str) -> None:
    """Prints what the probe with all labels loses in HU windows that it was not fitted in."""
    losses: dict[str, dict[int, npt.NDArray[np.float64]]] = {}
    windows: list[str] = []
    for name, result in results.items():
        if result.get("windows"):
            recipe, _, seed = name.rpartition("/")
            *_, fitted = result["curves"][maps].values()
            windows = [*result["windows"][maps]]
            others = np.stack([*result["windows"][maps].values()])
            losses.setdefault(recipe, {})[int(seed)] = np.mean(fitted, axis=0) - others
    if not losses:
        return
    print(f"\n| loss in another window | seeds | {' | '.join(windows)} |")
    print(f"|---|---|{'---|' * len(windows)}")
    for recipe, known in losses.items():
        means = np.mean([*known.values()], axis=(0, 2))
        print(f"| {recipe} | {len(known)} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    for recipe, known in losses.items():
        seeds = sorted(known.keys() & losses.get("random", {}).keys())
        if recipe != "random" and seeds:
            cells = _describe(np.stack([known[seed] - losses["random"][seed] for seed in seeds]))
            print(f"| {recipe} less random | {len(seeds)} | {' | '.join(cells)} |")


def _print_samples(results: dict[str, Any], maps: str) -> None:
    """Prints the gain on the random encoder of the same seed after so many samples seen."""
    for name, result in results.items():
        random = results.get(f"random/{name.rpartition('/')[2]}")
        if not result.get("snapshots") or random is None:
            continue
        start = _columns(random["curves"][maps])
        sizes = [*random["curves"][maps], "area"]
        print(f"\n| {name} less random, samples seen | {' | '.join(sizes)} |")
        print(f"|---|{'---|' * len(sizes)}")
        for seen, curves in result["snapshots"].items():
            cells = _describe((_columns(curves[maps]) - start)[np.newaxis])
            print(f"| {int(seen):,} | {' | '.join(cells)} |")


def _print_areas(areas: dict[str, dict[int, float]]) -> None:
    """Prints the differences of the mean areas of all pairs of recipes that have several seeds."""
    names = sorted((name for name in areas if len(areas[name]) > 1), key=lambda n: n == "random")
    print("\n| area | Welch, over encoders | paired by seed |\n|---|---|---|")
    for first, second in itertools.combinations(names, 2):
        ours, theirs = areas[first], areas[second]
        unpaired = stats.ttest_ind([*ours.values()], [*theirs.values()], equal_var=False)
        seeds = sorted(ours.keys() & theirs.keys())
        differences = [ours[seed] - theirs[seed] for seed in seeds]
        mean = np.mean([*ours.values()]) - np.mean([*theirs.values()])
        paired = "fewer than two pairs"
        if len(differences) > 1:
            paired = _t_interval(np.mean(differences), stats.ttest_1samp(differences, 0.0))
        print(f"| {first} less {second} | {_t_interval(mean, unpaired)} | {paired} |")


def _t_interval(mean: Any, test: Any) -> str:
    low, high = test.confidence_interval()
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}], p = {test.pvalue:.2g}"


def _group(results: dict[str, Any], maps: str) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns the curves by recipe and seed; attempts that failed are left out."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for name, result in results.items():
        if "curves" in result:
            recipe, _, seed = name.rpartition("/")
            runs.setdefault(recipe, {})[int(seed)] = result["curves"][maps]
    return runs


def _columns(curve: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Returns the accuracy of each test scan, [numbers of labeled scans and area, scans]."""
    rows = np.stack([np.mean(draws, axis=0) for draws in curve.values()])
    return np.concatenate([rows, rows.mean(axis=0, keepdims=True)])


def _describe(pairs: npt.NDArray[np.float64]) -> list[str]:
    """Returns mean and interval of each column of [seeds, columns, scans]."""
    generator = np.random.default_rng(0)
    n_seeds, _, n_scans = pairs.shape
    resampled = []
    for _ in range(_RESAMPLES):
        seeds = generator.integers(n_seeds, size=n_seeds)
        scans = generator.integers(n_scans, size=n_scans)
        resampled.append(pairs[seeds][:, :, scans].mean(axis=(0, 2)))
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    means = pairs.mean(axis=(0, 2))
    return [f"{m:+.3f} [{a:+.3f}, {b:+.3f}]" for m, a, b in zip(means, low, high, strict=True)]


if __name__ == "__main__":
    main()
