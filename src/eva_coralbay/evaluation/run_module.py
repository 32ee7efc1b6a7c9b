"""What the modules of all protocols share: the seeds of a run, its classes and its optimizer."""

import re
from typing import Any

import lightning.pytorch as pl
import torch
from eva.core.models.modules import module
from eva.core.utils import parser
from lightning.pytorch.trainer import states
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn, optim
from torch.optim import lr_scheduler
from typing_extensions import override

from eva_coralbay import errors
from eva_coralbay.data import seeding
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import metrics, native_input
from eva_coralbay.models import checkpoints
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.tasks import protocols

STATE = "eva_coralbay"
"""What of a checkpoint is ours."""


class RunModule(module.ModelModule):
    """A module of which eva trains several runs, each with a seed of its own.

    The seed of run k is `seed` + k. The encoder, the decoder or head, and every training step have
    seeds that follow from it but not from each other: two encoders meet the same decoder and the
    same crops in a run of the same seed, so that their runs can be compared in pairs; and a run
    that was interrupted draws in each step what it would have drawn.
    """

    def __init__(
        self,
        *,
        protocol: protocols.ProtocolName,
        seed: int,
        lr: float,
        lr_end: float,
        weight_decay: float,
        **kwargs: Any,
    ) -> None:
        """Initializes the module.

        Args:
            protocol: Decides what is trained and how it is scored.
            seed: The seed of run 0.
            lr: The learning rate at the start.
            lr_end: The learning rate that the cosine schedule ends with.
            weight_decay: The weight decay of AdamW.
            kwargs: The arguments of eva's module.

        Raises:
            EvaCoralbayError: If the seed or a number of the optimizer is negative, or not finite.
        """
        errors.check_at_least(0, seed, "seed", "SEED")
        errors.check_at_least(0, lr, "lr", "LR_VALUE")
        errors.check_at_least(0, lr_end, "lr_end", "LR_VALUE_END")
        errors.check_at_least(0, weight_decay, "weight_decay", "WEIGHT_DECAY")
        super().__init__(**kwargs)

        self.protocol: protocols.ProtocolName = protocol
        self.seed = seed
        self.run_seed = seed
        self.encoder_sha256: str | None = None
        self.classes: list[str] = []

        self.own_input: Preprocessing | None = None
        """The input that the encoder was trained on, once it is built to get that."""

        self._lr = lr
        self._lr_end = lr_end
        self._weight_decay = weight_decay

    @override
    def setup(self, stage: str) -> None:
        """Reads the classes from the data and, before a training, sets the seed of the run.

        Raises:
            EvaCoralbayError: If the length of the training does not fit the validations.
        """
        self._set_classes()
        if stage == "fit":
            if protocols.PROTOCOLS[self.protocol].mode != "probe":
                check_length(self.trainer)
            self.run_seed = self.seed + _run_index(self.trainer)
            pl.seed_everything(self.run_seed, verbose=False)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optim.AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=self._lr,
            weight_decay=self._weight_decay,
        )
        schedule = lr_scheduler.CosineAnnealingLR(
            optimizer,
            T_max=int(self.trainer.estimated_stepping_batches),
            eta_min=self._lr_end,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # so that dropout does not depend on what was drawn before, which an interrupted run forgets
        number = self.trainer.fit_loop.total_batch_idx
        torch.manual_seed(seeding.part_seed(self.run_seed, "step", number))

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[STATE] = {
            "classes": self.classes,
            "run_seed": self.run_seed,
            "encoder_sha256": self.encoder_sha256,
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that a checkpoint is of the encoder that there is.

        Raises:
            EvaCoralbayError: If not: a decoder is of use with its own encoder only.
        """
        stated = checkpoint.get(STATE, {}).get("encoder_sha256")
        if None not in (stated, self.encoder_sha256) and stated != self.encoder_sha256:
            raise EvaCoralbayError(
                f"The checkpoint is of an encoder with other weights (SHA-256 {stated[:12]}...) "
                f"than those that are loaded now ({str(self.encoder_sha256)[:12]}...). Load the "
                "weights of that run, or set another OUTPUT_ROOT."
            )
        super().on_load_checkpoint(checkpoint)

    def _build(self, network: Any, part: seeding.Part, seed: int | None = None) -> Any:
        """Builds a network from its `class_path` and `init_args`, with the seed of its part.

        Args:
            network: The specification, or a network, which is returned as it is.
            part: Which part of the run it is.
            seed: The seed of the run, that of this one if None.
        """
        if not isinstance(network, dict):
            return network
        self._seed_part(part, seed)
        built = parser.parse_object(network, expected_type=nn.Module)
        if part == "encoder" and protocols.PROTOCOLS[self.protocol].has_native_input:
            self.own_input = native_input.attach(built)
        return built

    def _seed_part(self, part: seeding.Part, seed: int | None = None) -> None:
        torch.manual_seed(seeding.part_seed(self.run_seed if seed is None else seed, part))

    def _set_classes(self) -> None:
        """Reads the class names from the data set and hands them to the metrics."""
        known = datasets(self.trainer).tolist()
        dataset = next(data for data in known if hasattr(data, "classes"))
        self.classes = list(dataset.classes)
        for collection in (self.metrics.validation_metrics, self.metrics.test_metrics):
            metric = metrics.find_case_metric(collection)
            if metric is not None:
                metrics.configure(metric, dataset)


def datasets(trainer: pl.Trainer) -> Any:
    """Returns the data sets of a trainer."""
    return trainer.datamodule.datasets  # type: ignore[reportAttributeAccessIssue]  # Lightning adds it later


def scored_dataset(trainer: pl.Trainer) -> Any:
    """Returns the data set whose cases are scored."""
    known = datasets(trainer)
    dataset = known.test if trainer.state.fn == states.TrainerFn.TESTING else known.val
    return dataset[0] if isinstance(dataset, list) else dataset


def encoder_sha256(encoder: nn.Module) -> str:
    """Hashes the weights of an encoder, whether or not eva's wrapper is around it."""
    return checkpoints.state_dict_sha256(unwrap(encoder).state_dict())


def unwrap(encoder: nn.Module) -> nn.Module:
    """Returns the network of an encoder, without eva's wrapper if there is one."""
    return getattr(encoder, "model", encoder)


def check_length(trainer: pl.Trainer) -> None:
    """Checks that the training ends, and that it ends with a validation.

    Args:
        trainer: The trainer.

    Raises:
        EvaCoralbayError: If not.
    """
    steps, interval = trainer.max_steps, trainer.val_check_interval
    if steps < 0:
        raise EvaCoralbayError(
            "The training samples have no end, so the trainer needs the number of its steps: set "
            "`max_steps` (MAX_STEPS)."
        )
    if isinstance(interval, int) and steps % interval != 0:
        raise EvaCoralbayError(
            f"`max_steps` ({steps}) must be a multiple of `val_check_interval` ({interval}), "
            "or the last steps would be trained but not saved: change MAX_STEPS or "
            "VAL_CHECK_INTERVAL."
        )


def _run_index(trainer: pl.Trainer) -> int:
    """Returns the number of the run, which eva keeps in the name of its log folder only."""
    match = re.search(r"run_(\d+)$", str(trainer.log_dir or ""))
    return int(match.group(1)) if match else 0
