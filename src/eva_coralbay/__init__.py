"""CoralBay for eva: CT encoders, CT data sets, evaluations and a public radiology leaderboard.

>>> from eva_coralbay import embed, load_encoder, read_scan
>>> encoder = load_encoder("radiology/voco_b")
>>> array, spacing, affine = read_scan("scan.nii.gz")
>>> embedding = embed("scan.nii.gz", encoder)

The public names are imported when they are used, so that reading a record imports no PyTorch.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("eva-coralbay runs on Linux and macOS. On Windows, install it in WSL.")

if TYPE_CHECKING:
    from eva_coralbay.data.scans import read_scan
    from eva_coralbay.errors import EvaCoralbayError
    from eva_coralbay.inference.embed import embed
    from eva_coralbay.inference.segment import segment
    from eva_coralbay.models.encoder import CoralBayEncoder
    from eva_coralbay.models.loading import load_encoder
    from eva_coralbay.tasks.catalog import TASKS

    __version__: str
    """The version of the installed package."""

__all__ = [
    "TASKS",
    "CoralBayEncoder",
    "EvaCoralbayError",
    "__version__",
    "embed",
    "load_encoder",
    "read_scan",
    "segment",
]

_MODULES = {
    "CoralBayEncoder": "eva_coralbay.models.encoder",
    "EvaCoralbayError": "eva_coralbay.errors",
    "TASKS": "eva_coralbay.tasks.catalog",
    "embed": "eva_coralbay.inference.embed",
    "load_encoder": "eva_coralbay.models.loading",
    "read_scan": "eva_coralbay.data.scans",
    "segment": "eva_coralbay.inference.segment",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    """Imports a public name on first use (PEP 562)."""
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("eva-coralbay")
    except metadata.PackageNotFoundError:
        # the sources are read without an installation, as the benchmarks on a bare machine do
        return "0+unknown"


def __dir__() -> list[str]:
    """Lists the public names before they are imported, too."""
    return sorted({*globals(), *__all__})
