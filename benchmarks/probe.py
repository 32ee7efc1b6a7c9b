"""What the linear probe says of the long protocol, how far apart encoders must be, and its cost.

agreement: encoders by the probe and by the decoder of the protocol `frozen` on the same cases, and
the rank correlation of the two (Spearman's and Kendall's), with intervals by bootstrap over the
cases. It reads the records of a results folder, such as the board's.

power: the spread of the difference of two encoders between cases, and the smallest difference that
a paired test of all cases finds in 80 % of its uses at a level of 0.05.

cost: seconds of a fit and of a scored case, the memory, and the ratio of both protocols.
"""

import argparse
import itertools
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from eva_coralbay.results import folder as results_folder
from eva_coralbay.results import record, scores

_RESAMPLES = 2000
_POWER, _LEVEL = 0.8, 0.05

_EXAMPLES = """examples:
  python benchmarks/probe.py
  python benchmarks/probe.py --metric dice_resampled
  python benchmarks/probe.py mine --task btcv
"""


class _Run(NamedTuple):
    """A scored encoder."""

    written: record.Record
    by_case: Mapping[str, float | None]


def main() -> None:
    """Prints the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default=pathlib.Path("leaderboard/results"),
        type=pathlib.Path,
        help="a results folder (default: %(default)s)",
    )
    parser.add_argument("--task", default="openkbp", help="the task (default: %(default)s)")
    parser.add_argument("--metric", default="dice", help="what is compared (default: %(default)s)")
    arguments = parser.parse_args()
    runs = _read(arguments.folder, arguments.task, arguments.metric)
    probes, decoders = (
        {model: run for (model, protocol), run in runs.items() if protocol == name}
        for name in ("probe", "frozen")
    )
    _print_cost(runs)
    _print_power(probes)
    _print_agreement(probes, decoders)


def _read(folder: pathlib.Path, task: str, metric: str) -> dict[tuple[str, str], _Run]:
    """Reads the record of the lowest seed of each model and protocol on a task."""
    runs = {}
    for entry in reversed(results_folder.find(folder)):
        written = entry.record
        if written.task.id == task:
            key = str(written.model.id), str(written.protocol)
            runs[key] = _Run(written, scores.by_case(entry.rows, metric))
    return runs


def _print_cost(runs: Mapping[tuple[str, str], _Run]) -> None:
    print("| encoder | protocol | cases | mean | few labels | fit s | s a case | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for (model, protocol), run in runs.items():
        cost, metrics = run.written.cost, run.written.metrics
        values = [value for value in run.by_case.values() if value is not None]
        curve = metrics.get("dice_resampled_curve")
        print(
            f"| {model} | {protocol} | {len(values)} | {statistics.fmean(values):.3f} "
            f"| {'-' if curve is None else f'{curve:.3f}'} | {cost.fit_seconds or math.nan:.0f} "
            f"| {cost.seconds_per_volume or math.nan:.2f} "
            f"| {(cost.peak_memory_bytes or 0) / 2**20:.0f} |"
        )


def _print_power(probes: Mapping[str, _Run]) -> None:
    """Prints how much two encoders differ between cases, and what that lets one find."""
    spreads = [
        float(np.std(first - second, ddof=1))
        for first, second in itertools.combinations(_stack(probes), 2)
    ]
    if not spreads:
        return
    n_cases = _stack(probes).shape[1]
    print(f"\nspread of a paired difference over {n_cases} cases: {min(spreads):.3f} to ", end="")
    print(f"{max(spreads):.3f}, median {statistics.median(spreads):.3f}")
    for n in (12, 25, n_cases, 150):
        found = _smallest_difference(statistics.median(spreads), n)
        print(f"smallest difference that {n} cases find: {found:.3f}")


def _smallest_difference(spread: float, n: int) -> float:
    """Returns the smallest mean difference that a paired t test finds with the wanted power."""
    critical = stats.t.ppf(1 - _LEVEL / 2, n - 1)
    effects = np.linspace(0.01, 3.0, 3000)
    power = 1 - stats.nct.cdf(critical, n - 1, effects * math.sqrt(n))
    return spread * float(effects[np.argmax(power >= _POWER)])


def _print_agreement(probes: Mapping[str, _Run], decoders: Mapping[str, _Run]) -> None:
    shared = sorted(probes.keys() & decoders.keys())
    if len(shared) < 3:
        print(f"\nagreement: {len(shared)} encoders have both protocols, which ranks nothing")
        return
    first, second = (
        _stack({model: runs[model] for model in shared}) for runs in (probes, decoders)
    )
    generator = np.random.default_rng(0)
    n_cases = first.shape[1]
    print(f"\nagreement of {len(shared)} encoders on {n_cases} cases")
    correlations: dict[str, Any] = {"Spearman": stats.spearmanr, "Kendall": stats.kendalltau}
    for name, correlate in correlations.items():
        value = correlate(first.mean(axis=1), second.mean(axis=1)).statistic
        drawn = [
            correlate(first[:, columns].mean(axis=1), second[:, columns].mean(axis=1)).statistic
            for columns in generator.integers(n_cases, size=(_RESAMPLES, n_cases))
        ]
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        print(f"{name}: {value:.2f} ({low:.2f} to {high:.2f} over cases)")
    for model, probe, decoder in zip(shared, first, second, strict=True):
        print(f"  {model}: probe {probe.mean():.3f}, decoder {decoder.mean():.3f}")


def _stack(runs: Mapping[str, _Run]) -> npt.NDArray[np.float64]:
    """Returns the values [encoders, cases] of the cases that all encoders have."""
    known: Sequence[set[str]] = [
        {case for case, value in run.by_case.items() if value is not None} for run in runs.values()
    ]
    cases = sorted(set.intersection(*known)) if known else []
    return np.array([[run.by_case[case] for case in cases] for run in runs.values()], dtype=float)


if __name__ == "__main__":
    main()
