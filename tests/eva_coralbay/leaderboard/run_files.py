"""Writes what a run of `eva fit` leaves."""

import pathlib
import shutil
from typing import Any

from eva_coralbay.results import record
from tests.eva_coralbay.leaderboard import result_files


def write(
    session: pathlib.Path,
    *,
    name: str = "record_test_last",
    is_finished: bool = True,
    **kwargs: Any,
) -> record.Record:
    """Writes a session of one run, with one record, its case table and its configuration.

    Args:
        session: The folder of the session.
        name: The name of the record.
        is_finished: Whether the session came to its end.
        kwargs: Arguments of :func:`result_files.write`.
    """
    run = session / "run_0"
    source = session / "source"
    entry = result_files.write(source, **kwargs)
    run.mkdir(exist_ok=True)
    shutil.copy(entry.cases_path, run / f"{name}.cases.csv")
    shutil.copy(entry.config_path, run / "config.yaml")
    result = entry.record.model_copy(
        update={
            "cases": entry.record.cases.model_copy(update={"file": f"{name}.cases.csv"}),
            "config": entry.record.config.model_copy(update={"file": "config.yaml"}),
        }
    )
    result.write(run / f"{name}.json")
    shutil.rmtree(source)
    if is_finished:
        (session / "results.json").write_text("{}")
    return result
