"""The self-distillation as a module of Lightning: its hooks, its log, exact resume."""

import json
import math
import typing
from typing import Any

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from loguru import logger
from torch import optim
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.pretraining import distillation, provenance
from eva_coralbay.pretraining import samples as data_lib

NUM_STANDARDIZED = 16
"""How many samples the heads are scaled to."""

_MIN_SCALE = 1.0
"""The scale of the loss below which a gradient in 16 bits that is not finite is not an overflow."""


class Distillation(distillation.SelfDistillation):
    """Trains by self-distillation in :class:`eva_coralbay.pretraining.Trainer`.

    What a step computes and all options but one are those of
    :class:`eva_coralbay.pretraining.distillation.SelfDistillation`.
    """

    def __init__(self, *, max_nonfinite_steps: int = 20, **kwargs: Any) -> None:
        """Initializes the module; the networks are built when the data are known.

        Args:
            max_nonfinite_steps: After how many steps without a finite gradient, which are left
                out, the training stops.
            kwargs: The options of the self-distillation.
        """
        super().__init__(**kwargs)
        self._max_nonfinite_steps = max_nonfinite_steps
        self._nonfinite_steps = 0
        self._losses_are_finite = True
        self._is_taken = True
        self._cases: list[str] = []
        self._phases: list[dict[str, Any]] = []
        self._stated_origin: dict[str, str | None] = {}
        self.monitored: dict[str, float] = {}

    @property
    @override
    def progress(self) -> distillation.Progress:
        """Where the training stands, as the trainer says, or a plain loop in its place."""
        if self._progress is not None:
            return self._progress
        trainer = self.trainer
        return distillation.Progress(
            trainer.global_step, trainer.max_steps, self.effective_batch, self.data.views
        )

    @progress.setter
    def progress(self, value: distillation.Progress) -> None:
        self._progress = value

    @property
    def center(self) -> torch.Tensor | None:
        """The center of the teacher's logits, [K]; None with Sinkhorn-Knopp."""
        return getattr(self.targets, "center", None)

    @property
    def data(self) -> data_lib.PretrainingData:
        """The data module of the training."""
        return self.trainer.datamodule  # type: ignore[reportAttributeAccessIssue]  # Lightning adds it later

    @property
    def effective_batch(self) -> int:
        """The number of samples of an optimizer step, over all ranks and accumulated batches."""
        trainer = self.trainer
        return self.data.batch_size * trainer.world_size * trainer.accumulate_grad_batches

    @override
    def configure_model(self) -> None:
        # eva calls it before there is a trainer
        if hasattr(self, "student") or self._trainer is None:
            return
        if self._koleo_weight > 0.0 and self.data.batch_size < 2:
            raise EvaCoralbayError(
                "The KoLeo regularizer drives the samples of a device apart, so it takes a "
                f"`batch_size` of at least 2, not {self.data.batch_size}; or set `koleo_weight: 0`."
            )
        self.build(
            num_scans=len(self.data.cases),
            batch_size=self.data.batch_size * self.trainer.world_size,
        )

    @override
    def on_train_start(self) -> None:
        if self.device.type == "cpu" and "16" in str(self.trainer.precision):
            raise EvaCoralbayError(
                f"PyTorch's convolutions in {self.trainer.precision} have wrong gradients on CPUs, "
                "where the coarsest map is small: set PRECISION=32-true."
            )
        self.settle_warm_up(self.trainer.max_steps)
        if not self._phases:
            self._phases = [{**self.describe_phase(), "from_step": self.trainer.global_step}]
        if self.trainer.global_step == 0:
            batch = self.data.probe_batch(NUM_STANDARDIZED)
            self.standardize_heads(self.trainer.strategy.batch_to_device(batch, self.device))
        if self.trainer.is_global_zero:
            self._say_what_is_trained()

    @override
    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.set_rates(self._optimizer)
        self._cases += batch["case"]

    @override
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> STEP_OUTPUT:
        losses = self.compute_losses(batch)
        self._losses_are_finite &= bool(losses.total.isfinite()) if self._scaler else True
        for name, value in losses.named.items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "kl"))
        return {
            "loss": losses.total,
            "teacher_logits": losses.teacher_logits,
            "teacher_probs": losses.teacher_probs,
        }

    @override
    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Any, batch_idx: int) -> None:
        pass

    @override
    def configure_gradient_clipping(
        self,
        optimizer: optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradient, and takes it away if it is not finite: then nothing changes.

        All ranks do the same, as they have the mean of their gradients.
        """
        norm = self.clip_gradient()
        self._log_step(norm)
        self._is_taken = bool(torch.isfinite(norm))
        if not self._is_taken:
            optimizer.zero_grad()
            if not self._overflows():
                self._count_nonfinite()

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        momentum = self._at_momentum()
        self._is_taken = True
        super().optimizer_step(*args, **kwargs)
        self.end_step(momentum=momentum, is_taken=self._is_taken)
        self._cases = []
        self._losses_are_finite = True

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stated = checkpoint["coralbay"]
        self._nonfinite_steps = stated["nonfinite_steps"]
        # the weights are those of the checkpoint, whatever `init_from` says now
        self._stated_origin = {name: stated.get(name) for name in ("init_from", "init_from_sha256")}
        if self._warm_heads_steps is None:
            before = json.loads(stated["config"])["model"]
            self._warm_heads_steps = before.get("warm_heads_steps") or 0
        built = self.num_prototypes, self._patch_merging, self._use_v2
        if self._picks_prototypes:
            self.num_prototypes = stated["num_prototypes"]
        if self._follows_weights:
            self._patch_merging = stated["encoder"]["patch_merging"]
            self._use_v2 = stated["encoder"]["use_v2"]
        if built != (self.num_prototypes, self._patch_merging, self._use_v2):
            self._build(init_from=None)
        own, path = self.describe_phase(), str(self.trainer.ckpt_path)
        provenance.check_same_networks(stated["config"], own["config"], path=path)
        self._phases = provenance.continue_phases(
            stated, own, step=checkpoint["global_step"], path=path
        )

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["coralbay"] = self.describe()

    def describe(self) -> dict[str, Any]:
        """Returns what is to be known of the weights, in plain types, for the checkpoint."""
        logged = self.trainer.callback_metrics.items()
        monitored = ((f"monitor/{name}", value) for name, value in self.monitored.items())
        return {
            **self.describe_data(self.data),
            **self._describe_counts(),
            "phases": self._phases,
            "nonfinite_steps": self._nonfinite_steps,
            "summary": {name: float(value) for name, value in (*logged, *monitored)},
        }

    def describe_phase(self) -> dict[str, Any]:
        """Returns what this start of the training is, in plain types."""
        described = self.describe_data(self.data)
        names = ("num_scans", "manifest_sha256", "config", "versions")
        return {**self._describe_counts(), **{name: described[name] for name in names}}

    def _describe_counts(self) -> dict[str, int | str]:
        trainer = self.trainer
        return {
            "batch_size": self.effective_batch,
            "device_batch_size": self.data.batch_size,
            "devices": trainer.world_size,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "steps": trainer.max_steps,
            "precision": str(trainer.precision),
        }

    def describe_data(self, data: data_lib.PretrainingData) -> dict[str, Any]:
        """Returns what is known of the weights before there is a trainer.

        Args:
            data: The data of the training.
        """
        origin = self.student.encoder.origin
        return {
            "encoder": {
                name: getattr(self.teacher.encoder, name)
                for name in ("feature_size", "in_channels", "patch_merging", "use_v2")
            },
            "scales": self.scales,
            "spacing": list(data.manifest.spacing),
            "manifest_sha256": data.manifest.sha256,
            "num_scans": len(data.cases),
            "num_prototypes": self.num_prototypes,
            "init_from": origin and origin.public_name,
            "init_from_sha256": origin and origin.sha256,
            **self._stated_origin,
            "config": json.dumps(
                {"model": provenance.arguments(self), "data": provenance.arguments(data)}
            ),
            "versions": provenance.describe_versions(),
        }

    def _say_what_is_trained(self) -> None:
        logger.info(
            f"Effective batch {self.effective_batch} ({self.data.batch_size} a device x "
            f"{self.trainer.world_size} devices x {self.trainer.accumulate_grad_batches} "
            f"accumulated), {self.num_prototypes} prototypes (ln K "
            f"{math.log(int(self.num_prototypes)):.2f}), {self.trainer.max_steps} steps from step "
            f"{self.trainer.global_step}, {len(self.data.cases)} scans."
        )

    def _log_step(self, norm: torch.Tensor) -> None:
        """Logs what belongs to a step of the optimizer."""
        group, *_ = self._optimizer.param_groups
        values = {
            "grad_norm": norm,
            "lr": group["lr"],
            "weight_decay": self._at(self._weight_decay),
            "teacher_temperature": self._at(self._teacher_temperature),
            "momentum": self._at_momentum(),
            "nonfinite_steps": float(self._nonfinite_steps),
        }
        self.log_dict({f"train/{name}": value for name, value in values.items()})

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss in 16 bits with a small exponent, if that is the precision."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _overflows(self) -> bool:
        """Returns whether the scaled loss is too large for 16 bits, and the scale can be lowered.

        That is how the scale is found, several times in any training.
        """
        scaler, strategy = self._scaler, self.trainer.strategy
        if scaler is None or scaler.get_scale() <= _MIN_SCALE:
            return False
        return strategy.reduce_boolean_decision(self._losses_are_finite, all=True)

    def _count_nonfinite(self) -> None:
        """Counts a step that is left out.

        Raises:
            EvaCoralbayError: If there are too many.
        """
        self._nonfinite_steps += 1
        named = ", ".join(self._cases)
        logger.warning(
            f"Step {self.trainer.global_step}: the gradient is not finite, so the step is left out "
            f"({self._nonfinite_steps} so far). Cases: {named}."
        )
        if self._nonfinite_steps > self._max_nonfinite_steps:
            raise EvaCoralbayError(
                f"More than {self._max_nonfinite_steps} steps had no finite gradient; the last one "
                f"had the cases {named}. Look at them with `eva-coralbay pretrain views`, lower "
                "the learning rate (`lr`), or go on from an older checkpoint."
            )

    @property
    def _optimizer(self) -> optim.Optimizer:
        return typing.cast(optim.Optimizer, self.optimizers(use_pl_optimizer=False))
