"""What makes `quickstart.yaml` a training of seconds."""

import pathlib

import pytest

PATH = str(
    pathlib.Path(__file__).parents[3] / "configs/vision/radiology/pretraining/quickstart.yaml"
)
"""The config."""

_ENVIRONMENT = {
    "MAX_STEPS": "2",
    "CHECKPOINT_INTERVAL": "2",
    "MONITOR_INTERVAL": "2",
    "NUM_PROBES": "3",
    "TQDM_REFRESH_RATE": "0",
    "NUM_PROTOTYPES": "32",
    "HEAD_DIMS": "[16, 16, 8]",
    "BATCH_SIZE": "1",
    "GLOBAL_SIZE": "34",
    "LOCAL_SIZE": "33",
    "NUM_LOCALS": "1",
    "GLOBAL_EDGE": "[30, 44]",
    "LOCAL_EDGE": "[16, 24]",
    "REGION_SIZE": "44",
    "HELD_OUT": "0",
}


def set_environment(patch: pytest.MonkeyPatch, **environment: str) -> None:
    """Sets the variables that the config reads; those given beside the small ones."""
    for name, value in {**_ENVIRONMENT, **environment}.items():
        patch.setenv(name, value)
