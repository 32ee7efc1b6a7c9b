"""Tests that the page can be built of every results folder that the validation accepts."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_coralbay.leaderboard import validation
from eva_coralbay.leaderboard.page import build
from eva_coralbay.results import case_table, scores
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.leaderboard import result_files

_LEADERBOARD = pathlib.Path(__file__).parents[3] / "leaderboard"

_Rows = list[case_table.Row]


def _as_drawn(rows: _Rows) -> _Rows:
    return rows


def _all_undefined(rows: _Rows) -> _Rows:
    return [case_table.CaseRow(row.case, row.class_name, row.metric, None, 0, 0) for row in rows]


def _class_undefined(rows: _Rows) -> _Rows:
    name = rows[0].class_name
    return [row if row.class_name != name else _all_undefined([row])[0] for row in rows]


def _case_undefined(rows: _Rows) -> _Rows:
    case = rows[0].case
    return [row if row.case != case else _all_undefined([row])[0] for row in rows]


def _all_perfect(rows: _Rows) -> _Rows:
    return [case_table.CaseRow(row.case, row.class_name, row.metric, 1.0, 5, 5) for row in rows]


def _all_missed(rows: _Rows) -> _Rows:
    return [case_table.CaseRow(row.case, row.class_name, row.metric, 0.0, 5, 0) for row in rows]


def _with_distances(rows: _Rows) -> _Rows:
    """Adds a metric of which lower is better, with a value that no scan has."""
    distances = [
        case_table.CaseRow(
            row.case,
            row.class_name,
            "hd95",
            None if row.value is None else 1e300 * row.value,
            row.truth_voxels,
            row.predicted_voxels,
        )
        for row in rows
        if isinstance(row, case_table.CaseRow)
    ]
    return [*rows, *distances]


_CHANGES = (
    _as_drawn,
    _all_undefined,
    _class_undefined,
    _case_undefined,
    _all_perfect,
    _all_missed,
    _with_distances,
)


def _draw_predictions(task: str, cases: Sequence[str], seed: int) -> _Rows:
    """Draws the rows of a classification; an odd seed is always sure."""
    generator, classes = np.random.default_rng(seed), catalog.TASKS[task].classes
    rows: _Rows = []
    for case in cases:
        truth = int(generator.integers(len(classes)))
        drawn = generator.dirichlet([1.0] * len(classes))
        probabilities = np.eye(len(classes))[drawn.argmax()] if seed % 2 else drawn
        rows += [
            case_table.PredictionRow(
                case, name, "probability", float(value), int(label == truth), case
            )
            for label, (name, value) in enumerate(zip(classes, probabilities, strict=True))
        ]
    return rows


_RESULTS = st.fixed_dictionaries(
    {
        "task": st.sampled_from(("btcv", "chaos", "chaos", "lits17", "nodule_mnist_3d")),
        "model": st.sampled_from(("lab/net", "lab/net", "lab/" + 40 * "x", "radiology/voco_b")),
        "version": st.sampled_from(("1", "2")),
        "seed": st.integers(0, 2),
        "change": st.sampled_from(_CHANGES),
        "kind": st.sampled_from(("measured", "measured", "demo")),
        "cost": st.fixed_dictionaries(
            {
                "fit_seconds": st.sampled_from((None, 0.0, 1.5, 1e9)),
                "peak_memory_bytes": st.sampled_from((None, 0, 10**14)),
                "seconds_per_volume": st.sampled_from((None, 0.0, 2.0)),
            }
        ),
        "robustness": st.sampled_from((None, {}, {"a": {}}, {"b": {"dice": None}})),
        "date": st.sampled_from((None, "1990-01-01", "9999-12-31")),
        "parameters": st.sampled_from((None, 0, 1, 10**12)),
        "license": st.sampled_from((None, "", "MIT", "<b>")),
        "datasets": st.sampled_from((None, [], ["BTCV"], ["own"])),
    }
)


def _write(root: pathlib.Path, drawn: dict[str, Any]) -> None:
    """Writes a result whose record follows from its case table."""
    result = dict(drawn)
    task, change = result["task"], result.pop("change")
    splits = splits_lib.read_splits(task)
    cases = splits.schemes[splits.default]["test"]
    if catalog.TASKS[task].kind == "classification":
        rows = _draw_predictions(task, cases, result["seed"])
    else:
        rows = change(list(result_files.draw_rows(cases, catalog.TASKS[task].classes, 0)))
    metrics = {k: None if v != v else v for k, v in scores.summarize(rows).items()}
    model = {
        "parameters": result.pop("parameters"),
        "license": result.pop("license"),
        "training_datasets": result.pop("datasets"),
    }
    entry = result_files.write(root, rows=rows, metrics=metrics, **result)
    content = json.loads(entry.path.read_text())
    content["model"] |= model
    entry.path.write_text(json.dumps(content))


def _check(root: pathlib.Path, results: Sequence[dict[str, Any]]) -> list[str]:
    """Builds the page of results if they are accepted; returns why they are not."""
    for result in results:
        _write(root / "results", result)
    faults = [fault for fault in validation.validate(root / "results") if not fault.is_warning]
    if faults:
        return list(map(str, faults))
    index = build.build(
        root / "results", _LEADERBOARD / "models", _LEADERBOARD / "reported", root / "site"
    )
    assert all(result["model"] in index.read_text() for result in results)
    return []


@given(results=st.lists(_RESULTS, min_size=1, max_size=4))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_accepted_can_be_drawn(
    tmp_path_factory: pytest.TempPathFactory, results: list[dict[str, Any]]
) -> None:
    _check(tmp_path_factory.mktemp("root"), results)


@pytest.mark.parametrize("change", _CHANGES)
def test_odd_values_are_accepted_and_drawn(
    tmp_path: pathlib.Path, change: Callable[[_Rows], _Rows]
) -> None:
    usual = {"task": "chaos", "version": "2", "kind": "measured", "date": None, "license": None}
    usual |= {"parameters": None, "datasets": None, "robustness": None}
    usual["cost"] = dict.fromkeys(("fit_seconds", "peak_memory_bytes", "seconds_per_volume"))
    results = [
        usual | {"model": model, "seed": seed, "change": change}
        for model in ("lab/one", "lab/two")
        for seed in (0, 1)
    ]
    assert _check(tmp_path, results) == [], "the test is of no use if nothing is accepted"
