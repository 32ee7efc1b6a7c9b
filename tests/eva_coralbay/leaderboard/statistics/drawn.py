"""Values of models that are drawn at random."""

from typing import Any

import numpy as np

from eva_coralbay.results import case_values

RESAMPLES = 500


def make_values(values: Any) -> case_values.CaseValues:
    """Makes values of shape [cases] or [seeds, cases]."""
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    return case_values.CaseValues(cases(values.shape[1]), values)


def cases(n: int) -> tuple[str, ...]:
    return tuple(f"case_{index:03d}" for index in range(n))


def draw(
    seed: int, *, n_models: int = 4, n_cases: int = 20, n_seeds: int = 1, step: float = 0.0
) -> dict[str, case_values.CaseValues]:
    """Draws models of which each is better than the next by `step`; the cases differ more."""
    generator = np.random.default_rng(seed)
    difficulty = generator.beta(9, 1.5, n_cases)
    return {
        f"model_{index}": make_values(
            difficulty - step * index + generator.normal(0, 0.03, (n_seeds, n_cases))
        )
        for index in range(n_models)
    }
