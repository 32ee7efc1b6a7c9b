"""The few metrics of a session that are said when it is over; its files have all others."""

import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence

from eva_coralbay.evaluation import sessions
from eva_coralbay.results import scores


def describe(session: pathlib.Path) -> Iterator[str]:
    """Says the headline metrics of each part of the split that a session has scored.

    Args:
        session: The folder of the session, with the scores of each run.

    Yields:
        A line for each part, such as "val: dice 0.746 ± 0.003, nsd 0.427 ± 0.002".
    """
    runs = [sessions.Progress(run) for run in sorted(session.glob("run_*"))]
    for part in ("val", "test"):
        line = ", ".join(_summarize([run.scores(part) for run in runs], part))
        if line:
            yield f"{part}: {line}"


def _summarize(runs: Sequence[Sequence[Mapping[str, float]] | None], part: str) -> Iterator[str]:
    """Yields each headline metric with its mean over the runs and its standard deviation."""
    scored = [
        {name.removeprefix(f"{part}/"): value for name, value in data_set.items()}
        for data_sets in runs
        for data_set in data_sets or ()
    ]
    names = set.intersection(*map(set, scored)) if scored else set()
    for name in scores.list_headlines(names):
        values = [run[name] for run in scored]
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        yield f"{name} {statistics.fmean(values):.3f}{deviation}"
