"""Draws the splits with a held-out test by the rule that the files of the splits state."""

import random
from collections.abc import Sequence


def draw(*strata: Sequence[str]) -> dict[str, list[str]]:
    """Draws train, val and test from each stratum in turn."""
    test_share = 0.3 if sum(map(len, strata)) < 100 else 0.2
    rng = random.Random(0)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for stratum in strata:
        cases = sorted(stratum)
        rng.shuffle(cases)
        num_test, num_val = round(len(cases) * test_share), round(len(cases) * 0.1)
        splits["test"] += cases[:num_test]
        splits["val"] += cases[num_test : num_test + num_val]
        splits["train"] += cases[num_test + num_val :]
    return {split: sorted(cases) for split, cases in splits.items()}
