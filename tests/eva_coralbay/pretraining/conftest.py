"""What makes the trainings of the tests short."""

from collections.abc import Iterator

import pytest

from tests.eva_coralbay.pretraining import runs


@pytest.fixture(autouse=True, scope="package")
def _fit_heads_to_few_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        runs.fit_heads_to_few_samples(patch)
        yield
