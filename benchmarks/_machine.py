"""The machine that a benchmark runs on."""

import pathlib
import platform


def processor() -> str:
    """Returns the name of the processor."""
    try:
        with pathlib.Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("model name"))
        return line.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
