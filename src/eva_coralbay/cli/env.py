"""The command `eva-coralbay env`."""

import argparse
import os
import pathlib
import platform
import re
import shutil
from importlib import metadata
from typing import Any

import psutil
from typing_extensions import override

from eva_coralbay import _processes
from eva_coralbay.cli import _output, _subcommand


class Env(_subcommand.Subcommand):
    """Prints versions, devices, memory and disk: add it to a bug report.

    It holds no environment variables, user names or paths.
    """

    name = "env"
    help = "print versions, devices, memory and disk, for a bug report"
    examples = """
        eva-coralbay env
        eva-coralbay env --json
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints what the machine and the environment are."""
        _output.announce_imports()
        facts = {
            "system": _describe_system(),
            "devices": _describe_devices(),
            "packages": _list_versions(),
        }
        if arguments.json:
            _output.print_json(facts)
        else:
            for title, values in facts.items():
                _output.print_table(
                    ("name", "value"),
                    ((name, str(value)) for name, value in values.items()),
                    title=title,
                    has_header=False,
                )
        return 0


def _describe_system() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory": f"{_in_gib(memory.available)} of {_in_gib(memory.total)} available",
    }
    for name, folder in (
        ("disk of this folder", pathlib.Path()),
        ("/dev/shm", _processes.SHARED_MEMORY),
    ):
        if folder.is_dir():
            usage = shutil.disk_usage(folder)
            facts[name] = f"{_in_gib(usage.free)} of {_in_gib(usage.total)} free"
    return facts


def _describe_devices() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"CUDA of PyTorch": torch.version.cuda or "none"}
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{device.name}, {_in_gib(device.total_memory)}"
    facts["mps"] = "available" if torch.backends.mps.is_available() else "none"
    return facts


def _list_versions() -> dict[str, str]:
    """Returns the versions of this package and of its dependencies, by name."""
    versions = {"eva-coralbay": metadata.version("eva-coralbay")}
    for requirement in metadata.requires("eva-coralbay") or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _in_gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
