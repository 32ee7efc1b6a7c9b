"""Times the statistics of a leaderboard: all means, all pairs on each task, and the ranking."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before numpy is loaded

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np

from eva_coralbay.leaderboard import statistics
from eva_coralbay.results import case_values


def _draw(
    n_models: int, n_tasks: int, n_cases: int, n_seeds: int
) -> dict[str, dict[str, case_values.CaseValues]]:
    """Draws values like those of the Dice: cases differ more than models do."""
    generator = np.random.default_rng(0)
    cases = tuple(f"case_{index:05d}" for index in range(n_cases))
    tasks = {}
    for task in range(n_tasks):
        difficulty = generator.beta(18, 2, n_cases)
        tasks[f"task_{task}"] = {
            f"model_{model}": case_values.CaseValues(
                cases,
                difficulty - 0.002 * model + generator.normal(0, 0.03, (n_seeds, n_cases)),
            )
            for model in range(n_models)
        }
    return tasks


def main() -> None:
    """Runs the benchmark and prints a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=15)
    parser.add_argument("--cases", type=int, default=60, help="cases of each task")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each model")
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    tasks = _draw(arguments.models, arguments.tasks, arguments.cases, arguments.seeds)
    resamples = arguments.resamples

    parts: dict[str, Callable[[], object]] = {
        "means": lambda: [
            statistics.mean(values, resamples=resamples)
            for models in tasks.values()
            for values in models.values()
        ],
        "comparisons": lambda: [statistics.compare(models) for models in tasks.values()],
        "ranking": lambda: statistics.rank(tasks, resamples=resamples),
    }
    print(
        f"{arguments.models} models, {arguments.tasks} tasks of {arguments.cases} cases, "
        f"{arguments.seeds} seeds, {resamples} resamples, "
        f"{os.environ['OMP_NUM_THREADS']} threads\n\n| part | seconds |\n|---|---|"
    )
    total = 0.0
    for name, compute in parts.items():
        started = time.perf_counter()
        compute()
        seconds = time.perf_counter() - started
        total += seconds
        print(f"| {name} | {seconds:.1f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| all | {total:.1f} |\n\npeak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
