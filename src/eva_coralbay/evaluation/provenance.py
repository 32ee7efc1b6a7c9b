"""What a record states beside its values: data, encoder, versions, device and configuration."""

import dataclasses
import functools
import os
import pathlib
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jsonargparse
import lightning.pytorch as pl
import torch
import yaml
from eva.core import interface
from torch import nn

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import description, recorded_name
from eva_coralbay.results import record

_PACKAGES = (
    "blosc2",
    "eva-coralbay",
    "isal",
    "jsonargparse",
    "kaiko-eva",
    "lightning",
    "monai",
    "nibabel",
    "numpy",
    "scipy",
    "torch",
    "torchmetrics",
    "torchvision",
)
"""The packages whose versions may change a result."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What a data set says of itself; eva's own data sets say nothing of it."""

    name: str | None
    license: str | None
    split_name: str | None
    case_ids: list[str] | None
    checksums: dict[str, str] | None


def describe_data(dataset: Any) -> Data:
    """Returns what a data set says of itself, `None` for what it does not.

    Args:
        dataset: The data set; its files are read if it has checksums.
    """
    case_ids = getattr(dataset, "case_ids", None)
    checksums: Callable[[], dict[str, str]] | None = getattr(dataset, "checksums", None)
    return Data(
        name=getattr(dataset, "name", None),
        license=getattr(dataset, "license", None),
        split_name=getattr(dataset, "split_name", None),
        case_ids=None if case_ids is None else list(case_ids),
        checksums=None if checksums is None else checksums(),
    )


def describe_model(pl_module: pl.LightningModule, name: str | None) -> record.Model:
    """Returns what is known of the encoder that a module evaluates.

    Args:
        pl_module: The module.
        name: The name that the run was started with. A published name is kept for the published
            weights only.
    """
    encoder: Any = getattr(pl_module, "encoder", None)
    known = isinstance(encoder, nn.Module)
    model = recorded_name.find_recorded_name(encoder, name)
    return record.Model(
        id=model.id,
        revision=model.revision,
        weights_sha256=getattr(pl_module, "encoder_sha256", None),
        license=None,
        training_datasets=None,
        parameters=sum(weight.numel() for weight in encoder.parameters()) if known else None,
    )


def describe_encoder(pl_module: pl.LightningModule) -> record.Encoder | None:
    """Returns what the encoder that a module evaluates computes, `None` if it has no network.

    Args:
        pl_module: The module.
    """
    encoder = getattr(pl_module, "encoder", None)
    if not isinstance(encoder, nn.Module):
        return None
    return record.Encoder(**description.describe_encoder(encoder))


def describe_environment(device: torch.device) -> record.Environment:
    """Returns the versions of the software and the name of the device.

    Args:
        device: The device of the run.
    """
    is_cuda = device.type == "cuda"
    return record.Environment(
        packages={name: _version(name) for name in _PACKAGES},
        python=platform.python_version(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        device=(
            torch.cuda.get_device_name(device) if is_cuda else f"{device.type} {platform.machine()}"
        ),
    )


def peak_memory(device: torch.device) -> int | None:
    """Returns the most bytes in use so far: on a GPU since the fit began, else by the process.

    Args:
        device: The device of the run.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resolved_config() -> dict[str, Any] | None:
    """Parses the command line of eva once more.

    Returns:
        The configuration with all overrides, defaults and environment variables in it, as
        `eva <subcommand> --config` reads it; `None` if the program is not eva.

    Raises:
        EvaCoralbayError: If it cannot be parsed.
    """
    # what the configuration reads of the environment may change in a program that runs eva twice
    environment = frozenset(os.environ.items())
    return _parse(tuple(sys.argv), environment) if is_started_by_eva() else None


def is_started_by_eva() -> bool:
    """Whether this process is the command `eva`, or `python -m eva`."""
    program = pathlib.Path(sys.argv[0])
    return (program.parent.name if program.name == "__main__.py" else program.stem) == "eva"


@functools.lru_cache(maxsize=1)
def _parse(argv: tuple[str, ...], environment: frozenset[tuple[str, str]]) -> dict[str, Any]:
    """Parses a command line, with the program first, in an environment, which it may read."""
    parser = jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )
    try:
        config = parser.parse_args(list(argv[1:]))
    except SystemExit as error:
        raise EvaCoralbayError(f"The command line {list(argv)} cannot be recorded.") from error
    content = yaml.safe_load(parser.dump(config, skip_none=False))[config.subcommand]
    content.pop("config", None)
    return content


def _version(package: str) -> str | None:
    """Returns the version of a package, `None` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
