"""The checkpoints of a training as files: nothing executed, nothing damaged, nothing missing."""

import os
import pathlib
import zipfile
from typing import Any

import torch

from eva_coralbay.errors import EvaCoralbayError

_NEEDED = ("state_dict", "global_step", "coralbay")
"""What every checkpoint of a training has."""

_STATED = (
    "batch_size", "config", "encoder", "manifest_sha256", "num_prototypes", "num_scans", "scales",
    "spacing", "steps", "summary", "versions",
)  # fmt: skip
"""What `coralbay` of it states of the training."""

_FIX = (
    "Choose another checkpoint of the folder. If this one is damaged, delete it to resume from the "
    "one before it."
)


def read(path: str | os.PathLike[str], *, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint of `pretrain fit`.

    Args:
        path: The file.
        map_location: Where to put the tensors.

    Raises:
        EvaCoralbayError: If the file is missing, damaged to a single bit, no checkpoint, or lacks a
            part.
    """
    _check_intact(path)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a pickle of anything may raise anything
        raise EvaCoralbayError(
            f"'{path}' is not a checkpoint that can be read ({type(error).__name__}). {_FIX}"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("coralbay"), dict):
        raise EvaCoralbayError(
            f"'{path}' is not a checkpoint of `eva-coralbay pretrain fit`: it does not say what "
            "was trained."
        )
    missing = [name for name in _NEEDED if name not in content]
    missing += [f"coralbay.{name}" for name in _STATED if name not in content["coralbay"]]
    if missing:
        raise EvaCoralbayError(f"Checkpoint '{path}' lacks {', '.join(missing)}. {_FIX}")
    return content


def _check_intact(path: str | os.PathLike[str]) -> None:
    """Checks the checksums of a file that PyTorch wrote, which PyTorch itself does not.

    Raises:
        EvaCoralbayError: If it is missing or damaged, or no file.
    """
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
        raise EvaCoralbayError(f"'{path}' is a folder, a pipe or a device, not a checkpoint.")
    try:
        with zipfile.ZipFile(pathlib.Path(path)) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise EvaCoralbayError(f"'{path}': {error.strerror or error}.") from error
    except Exception as error:  # the directory of a damaged archive may hold anything
        raise EvaCoralbayError(
            f"'{path}' is not a checkpoint, or it is damaged ({type(error).__name__}). {_FIX}"
        ) from error
    if damaged is not None:
        raise EvaCoralbayError(f"'{path}' is damaged: the checksum of a part is wrong. {_FIX}")
