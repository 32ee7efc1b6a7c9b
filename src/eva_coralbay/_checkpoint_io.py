"""Checkpoints of Lightning that are there as a whole or not at all, and that execute nothing."""

from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from typing_extensions import override

from eva_coralbay import _atomic_files
from eva_coralbay.errors import EvaCoralbayError


class CheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint as a whole or not at all, and reads nothing but tensors and values."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        with _atomic_files.open_atomically(path) as file:
            torch.save(checkpoint, file)

    @override
    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:
            raise EvaCoralbayError(
                f"Checkpoint '{path}' is damaged ({type(error).__name__}). Remove it to go on from "
                "the one before it."
            ) from error
