"""What holds for all tests."""

import os
import sys
from collections.abc import Iterator

import pytest
from loguru import logger

if "PYTEST_XDIST_WORKER" in os.environ:
    # as many tests run at once as there are cores; it is read when torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_SLOW_TIMEOUT_S = 2 * 3600
"""After how many seconds a slow test fails."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives slow tests more time than the others have."""
    for item in items:
        if "slow" in item.keywords and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SLOW_TIMEOUT_S))


@pytest.fixture(name="log")
def _log() -> Iterator[list[str]]:
    """What is logged during the test, each message as "<LEVEL> <message>"."""
    messages: list[str] = []
    handler = logger.add(
        lambda message: messages.append(message.rstrip()), format="{level} {message}"
    )
    yield messages
    logger.remove(handler)


@pytest.fixture(autouse=True)
def _same_algorithms() -> Iterator[None]:
    """Ends a test with the algorithms that PyTorch had before: some trainings choose others."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.use_deterministic_algorithms(False)
