"""The code in the documents, and what runs it on small scans and for two steps."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

NO_WEIGHTS = ("MODEL_NAME=radiology/coralbay ", "MODEL_NAME=radiology/coralbay_random ")
"""The encoder that needs no download."""

_SHORT = {
    "ACCELERATOR": "cpu",
    "BATCH_SIZE": "1",
    "IN_FEATURES": "12",
    "MAX_STEPS": "2",
    "N_DATA_WORKERS": "0",
    "N_RUNS": "1",
    "ROI_SIZE": "[64, 64, 64]",
    "SAMPLE_BATCH_SIZE": "1",
    "VAL_CHECK_INTERVAL": "2",
}
"""What makes a training short and small."""


def read_blocks(document: str, section: str | None, language: str = "bash") -> list[str]:
    """Returns the blocks of code below a heading, or before the first one."""
    text = (ROOT / document).read_text(encoding="utf-8")
    heading = rf"^## {re.escape(section)}$" if section else r"^# .*$"
    below = re.split(heading, text, flags=re.MULTILINE)[1]
    below = re.split(r"^## ", below, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", below, flags=re.MULTILINE | re.DOTALL)


def run(
    script: str,
    folder: pathlib.Path,
    *,
    replace: Sequence[tuple[str, str]] = (),
    short: bool = True,
    **env: str,
) -> str:
    """Runs a script in a folder, with other names for what this machine has not.

    Args:
        script: The commands, which all have to succeed.
        folder: Where they run.
        replace: What to replace, and by what.
        short: Whether trainings have two steps.
        env: Further environment variables.

    Returns:
        What it prints.
    """
    for old, new in replace:
        assert old in script, f"the document says no more '{old}'"
        script = script.replace(old, new)
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **(_SHORT if short else {}), "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout
