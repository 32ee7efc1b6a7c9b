"""Self-distillation of the encoder on its concatenated multi-scale features."""

import dataclasses
import importlib.metadata
import inspect
import json
import math
from typing import Any, Literal

import numpy as np
import torch
from eva.core.models import modules
from lightning.pytorch.utilities.types import STEP_OUTPUT
from loguru import logger
from torch import nn, optim
from typing_extensions import override

from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.models import swin
from eva_coralbay.pretraining import heads, loss, schedules, views
from eva_coralbay.pretraining import samples as data_lib

Scales = Literal["multi", "last"]
"""What is distilled: the embedding of all scales, or that of the last stage alone."""

EMBEDDINGS: dict[Scales, encoder_lib.EmbeddingsType] = {"multi": "multiscale", "last": "head"}
"""The embedding of the encoder that is distilled."""

_PROTOTYPES = ((100, 1024), (1000, 4096), (5000, 8192))
"""How many prototypes are enough for fewer than so many scans."""

_MAX_PROTOTYPES = 16384
"""How many prototypes there are for more scans than those."""

_BASE_BATCH = 256
"""The effective batch that the learning rate is stated for."""

_STANDARDIZED = 16
"""How many samples the heads are scaled to."""

_NETWORKS = (
    "feature_size",
    "patch_merging",
    "scales",
    "num_prototypes",
    "head_dims",
    "balance",
)
"""The arguments that the weights of a checkpoint depend on."""

_VERSIONED = ("eva-coralbay", "kaiko-eva", "lightning", "torch")
"""Packages whose versions a checkpoint carries."""


class Network(nn.Module):
    """An encoder with a projection head: the student, or the teacher."""

    def __init__(self, encoder: encoder_lib.CoralBayEncoder, head: heads.Head) -> None:
        """Initializes the network.

        Args:
            encoder: Maps views [B, 1, D, H, W] to embeddings [B, E].
            head: Maps embeddings to logits [B, K].
        """
        super().__init__()
        self.encoder = encoder
        self.head = head


class Distillation(modules.ModelModule):
    """Trains a student to predict, from any view, what its teacher makes of a global one.

    Student and teacher are an encoder and a head each. The teacher is the running mean of the
    student, starts as a copy of it and sees the global views only.

    - CoralBay: A Self-Supervised CT Foundation Model, https://arxiv.org/abs/2606.03888
    - Emerging Properties in Self-Supervised Vision Transformers, https://arxiv.org/abs/2104.14294
    """

    student: Network
    teacher: Network
    targets: loss.Centering | loss.SinkhornKnopp

    def __init__(
        self,
        *,
        feature_size: int = 48,
        patch_merging: swin.PatchMergingVariant = "octants",
        scales: Scales = "multi",
        num_prototypes: int | Literal["auto"] = "auto",
        head_dims: tuple[int, int, int] = (2048, 2048, 256),
        balance: Literal["centering", "sinkhorn_knopp"] = "centering",
        center_momentum: float = 0.9,
        koleo_weight: float = 0.0,
        student_temperature: float = 0.1,
        teacher_temperature: schedules.Schedule | None = None,
        momentum: schedules.Schedule | None = None,
        lr: schedules.Schedule | None = None,
        weight_decay: schedules.Schedule | None = None,
        clip_norm: float = 3.0,
        drop_path_rate: float = 0.1,
        freeze_prototypes_steps: int = 1250,
        max_nonfinite_steps: int = 20,
        activation_checkpointing: bool = False,
        compile_encoder: bool = False,
        seed: int = 0,
    ) -> None:
        """Initializes the module; the networks are built when the data are known.

        Args:
            feature_size: Channels of the encoder's finest map, a multiple of 12.
            patch_merging: How the encoder merges patches.
            scales: What is distilled: the concatenated embedding of all scales (`multi`), or that
                of the last stage (`last`).
            num_prototypes: The number of prototypes, K; `auto` takes it from the number of scans.
            head_dims: The widths of the head's two hidden layers and of its bottleneck.
            balance: What keeps the teacher from collapse.
            center_momentum: How much of the center stays at each step.
            koleo_weight: The weight of the KoLeo regularizer; 0 for none.
            student_temperature: The temperature of the student.
            teacher_temperature: The temperature of the teacher.
            momentum: How much of the teacher stays at each step.
            lr: The learning rate for an effective batch of 256; it scales with the batch.
            weight_decay: The weight decay, for all but biases, norms and position biases.
            clip_norm: The norm to which the gradient is clipped.
            drop_path_rate: The stochastic depth of the student's last block.
            freeze_prototypes_steps: For how many steps the prototypes stay as they are.
            max_nonfinite_steps: After how many steps without a finite gradient, which are left
                out, the training stops.
            activation_checkpointing: Whether the student recomputes its activations in the
                backward pass, which saves memory and takes time.
            compile_encoder: Whether the encoders are compiled, which pays on GPUs only.
            seed: What the initial weights and drop-path follow from.
        """
        super().__init__()
        self.scales: Scales = scales
        self.num_prototypes: int | Literal["auto"] = num_prototypes
        self._picks_prototypes = num_prototypes == "auto"
        self._feature_size = feature_size
        self._patch_merging: swin.PatchMergingVariant = patch_merging
        self._head_dims = head_dims
        self._balance = balance
        self._center_momentum = center_momentum
        self._koleo_weight = koleo_weight
        self._student_temperature = student_temperature
        self._teacher_temperature = teacher_temperature or schedules.Schedule(0.04, 0.07, 0.07, 0.3)
        self._momentum = momentum or schedules.Schedule(0.996, 0.996, 1.0)
        self._lr = lr or schedules.Schedule(0.0, 5e-4, 1e-6, 0.1)
        self._weight_decay = weight_decay or schedules.Schedule(0.04, 0.04, 0.4)
        self._clip_norm = clip_norm
        self._drop_path_rate = drop_path_rate
        self._freeze_prototypes_steps = freeze_prototypes_steps
        self._max_nonfinite_steps = max_nonfinite_steps
        self._activation_checkpointing = activation_checkpointing
        self._compile_encoder = compile_encoder
        self._seed = seed
        self._nonfinite_steps = 0
        self._cases: list[str] = []
        self.monitored: dict[str, float] = {}

    @property
    def center(self) -> torch.Tensor | None:
        """The center of the teacher's logits, [K]; None with Sinkhorn-Knopp."""
        return getattr(self.targets, "center", None)

    @property
    def data(self) -> data_lib.PretrainingData:
        """The data module of the training."""
        return self.trainer.datamodule  # type: ignore[reportAttributeAccessIssue]

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
            raise ValueError(
                "The KoLeo regularizer drives the samples of a device apart, so it takes a "
                f"`batch_size` of at least 2, not {self.data.batch_size}; or set `koleo_weight: 0`."
            )
        self.build(num_scans=len(self.data.manifest.prepared))

    def build(self, *, num_scans: int) -> None:
        """Builds student and teacher, with the weights that the seed decides.

        Args:
            num_scans: The number of scans, which decides K if it is `auto`.
        """
        if self._picks_prototypes:
            self.num_prototypes = _suitable_prototypes(num_scans)
        self._build()

    def _build(self) -> None:
        """Builds the networks for the number of prototypes."""
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            self.student = self._build_network(trained=True)
        self.teacher = self._build_network(trained=False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.targets = (
            loss.SinkhornKnopp()
            if self._balance == "sinkhorn_knopp"
            else loss.Centering(int(self.num_prototypes), momentum=self._center_momentum)
        )

    @override
    def configure_optimizers(self) -> optim.Optimizer:
        groups = _group_parameters(self.student)
        return optim.AdamW(groups, lr=self._lr.peak, betas=(0.9, 0.999))

    @override
    def on_train_start(self) -> None:
        if self.trainer.global_step == 0:
            self._standardize_heads()
        if self.trainer.is_global_zero:
            self._say_what_is_trained()

    @override
    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        lr = self._at(self._lr.scaled(self.effective_batch / _BASE_BATCH))
        weight_decay = self._at(self._weight_decay)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
            group["weight_decay"] = weight_decay if group["decays"] else 0.0
        self._cases += batch["case"]

    @override
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> STEP_OUTPUT:
        # of this step and rank alone, so that a resumed run draws what an undisturbed one does
        torch.manual_seed(_mix(self._seed, int(batch["number"][0])))
        global_views, local_views = self._render(batch)
        with torch.no_grad():
            embeddings = self.teacher.encoder(global_views)
            logits = _by_view(self.teacher.head(embeddings), batch)
            probs = self.targets(logits, temperature=self._at(self._teacher_temperature))
        student = [self.student.encoder(views) for views in (global_views, *local_views)]
        value = loss.distillation_loss(
            probs,
            _by_view(self.student.head(torch.cat(student)), batch),
            temperature=self._student_temperature,
        )
        self.log("train/loss", value, prog_bar=True)
        if self._koleo_weight > 0.0:
            koleo = sum(loss.koleo_loss(view) for view in student[0].chunk(views.NUM_GLOBALS))
            self.log("train/koleo", koleo)
            value = value + self._koleo_weight * koleo
        return {"loss": value, "teacher_probs": probs, "embeddings": embeddings.float()}

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
        if self.trainer.global_step < self._freeze_prototypes_steps:
            self.student.head.prototypes.grad = None
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), self._clip_norm)
        self._log_step(norm)
        if not torch.isfinite(norm):
            optimizer.zero_grad()
            self._count_nonfinite()

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        momentum, skipped = self._at(self._momentum), self._nonfinite_steps
        super().optimizer_step(*args, **kwargs)
        is_taken = self._nonfinite_steps == skipped
        if is_taken:
            _follow(self.teacher, self.student, momentum=momentum)
        if isinstance(self.targets, loss.Centering):
            self.targets.end_step(is_taken=is_taken)
        self._cases = []

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stated = checkpoint["coralbay"]
        self._nonfinite_steps = stated["nonfinite_steps"]
        if self._picks_prototypes and stated["num_prototypes"] != self.num_prototypes:
            self.num_prototypes = stated["num_prototypes"]
            self._build()
        own = self.describe_data(self.data)
        path = str(self.trainer.ckpt_path)
        _check_same_networks(stated["config"], own["config"], path=path)
        if stated["manifest_sha256"] != own["manifest_sha256"]:
            logger.warning(
                f"The store has changed since checkpoint '{path}': it had {stated['num_scans']} "
                f"scans and has {own['num_scans']}. The training goes on with the scans of now, in "
                "another order, so it is not the one that it would have been."
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
            "batch_size": self.effective_batch,
            "steps": self.trainer.max_steps,
            "nonfinite_steps": self._nonfinite_steps,
            "summary": {name: float(value) for name, value in (*logged, *monitored)},
        }

    def describe_data(self, data: data_lib.PretrainingData) -> dict[str, Any]:
        """Returns what is known of the weights before there is a trainer.

        Args:
            data: The data of the training.
        """
        return {
            "encoder": {
                name: getattr(self.teacher.encoder, name)
                for name in ("feature_size", "in_channels", "patch_merging", "use_v2")
            },
            "scales": self.scales,
            "spacing": list(data.manifest.spacing),
            "manifest_sha256": data.manifest.sha256,
            "num_scans": len(data.manifest.prepared),
            "num_prototypes": self.num_prototypes,
            "config": json.dumps({"model": _arguments(self), "data": _arguments(data)}),
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        }

    @torch.no_grad()
    def embed(self, hounsfield: torch.Tensor, window: tuple[float, float]) -> torch.Tensor:
        """Computes the teacher's embeddings.

        Args:
            hounsfield: The HU, of shape [B, 1, D, H, W].
            window: The HU window (lower, upper).

        Returns:
            The embeddings, float32, of shape [B, E].
        """
        tensor = views.apply_window(hounsfield.to(self.device).float(), *window)
        return self.teacher.encoder(tensor).float()

    def _build_network(self, *, trained: bool) -> Network:
        """Builds the student, which is trained, or the teacher, which is not."""
        encoder = encoder_lib.CoralBayEncoder(
            feature_size=self._feature_size,
            embeddings_type=EMBEDDINGS[self.scales],
            patch_merging=self._patch_merging,
            drop_path_rate=self._drop_path_rate if trained else 0.0,
            activation_checkpointing=self._activation_checkpointing and trained,
        )
        *hidden_dims, bottleneck_dim = self._head_dims
        head = heads.Head(
            encoder.embedding_dim,
            int(self.num_prototypes),
            hidden_dims=hidden_dims,
            bottleneck_dim=bottleneck_dim,
        )
        if self._compile_encoder:
            encoder.compile()
        if self.scales == "last":
            for unused in (encoder.encoder1, encoder.encoder2, encoder.encoder3, encoder.encoder4):
                unused.requires_grad_(False)
        network = Network(encoder, head)
        return network if trained else network.requires_grad_(False)

    def _say_what_is_trained(self) -> None:
        logger.info(
            f"Effective batch {self.effective_batch} ({self.data.batch_size} a device x "
            f"{self.trainer.world_size} devices x {self.trainer.accumulate_grad_batches} "
            f"accumulated), {self.num_prototypes} prototypes (ln K "
            f"{math.log(int(self.num_prototypes)):.2f}), {self.trainer.max_steps} steps from step "
            f"{self.trainer.global_step}, {len(self.data.manifest.prepared)} scans."
        )

    @torch.no_grad()
    def _standardize_heads(self) -> None:
        """Fits the scale of the heads to the embeddings of the untrained encoder."""
        batch = self.trainer.strategy.batch_to_device(
            self.data.probe_batch(_STANDARDIZED), self.device
        )
        torch.manual_seed(self._seed)
        global_views, _ = self._render(batch)
        embeddings = [self.teacher.encoder(view) for view in global_views.split(1)]
        parts = self.teacher.encoder.embedding_parts
        self.student.head.standardize(torch.cat(embeddings), parts=parts)
        self.teacher.head.load_state_dict(self.student.head.state_dict())

    def _render(self, batch: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Renders the views, each of shape [V * B, 1, G, G, G], all first ones first.

        Returns:
            The global views, and a list with the local views if there are any.
        """
        sizes = self.data.views
        with torch.autocast(self.device.type, enabled=False):
            rendered = [
                views.render(batch["hu"], drawn, size=size).transpose(0, 1).flatten(0, 1)
                for drawn, size in (
                    (batch["globals"], sizes.global_size),
                    (batch["locals"], sizes.local_size),
                )
                if drawn.theta.shape[1]
            ]
        return rendered[0], rendered[1:]

    def _at(self, schedule: schedules.Schedule) -> float:
        """Returns the value of a schedule at this step."""
        return schedule.at(self.trainer.global_step, steps=self.trainer.max_steps)

    def _log_step(self, norm: torch.Tensor) -> None:
        """Logs what belongs to a step of the optimizer."""
        group, *_ = self._optimizer.param_groups
        values = {
            "grad_norm": norm,
            "lr": group["lr"],
            "weight_decay": self._at(self._weight_decay),
            "teacher_temperature": self._at(self._teacher_temperature),
            "momentum": self._at(self._momentum),
            "nonfinite_steps": float(self._nonfinite_steps),
        }
        self.log_dict({f"train/{name}": value for name, value in values.items()})

    def _count_nonfinite(self) -> None:
        """Counts a step that is left out.

        Raises:
            FloatingPointError: If there are too many.
        """
        self._nonfinite_steps += 1
        named = ", ".join(self._cases)
        logger.warning(
            f"Step {self.trainer.global_step}: the gradient is not finite, so the step is left out "
            f"({self._nonfinite_steps} so far). Cases: {named}."
        )
        if self._nonfinite_steps > self._max_nonfinite_steps:
            raise FloatingPointError(
                f"More than {self._max_nonfinite_steps} steps had no finite gradient; the last one "
                f"had the cases {named}. Look at them with `eva-coralbay pretrain views`, lower "
                "the learning rate (`lr`), or go on from an older checkpoint."
            )

    @property
    def _optimizer(self) -> optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, optim.Optimizer)  # nosec B101
        return optimizer


def _check_same_networks(stated: str, own: str, *, path: str) -> None:
    """Checks that a checkpoint is of networks as the configuration describes.

    Args:
        stated: The configuration of the checkpoint's run, as JSON.
        own: That of this one.
        path: The path of the checkpoint.

    Raises:
        ValueError: If it is not, naming what differs.
    """
    before, now = json.loads(stated)["model"], json.loads(own)["model"]
    for name in _NETWORKS:
        if before[name] != now[name]:
            raise ValueError(
                f"Checkpoint '{path}' is of a training with `{name}: {before[name]}`, and the "
                f"configuration has {now[name]}: set it as it was, or for a new training another "
                "`default_root_dir`."
            )


def _suitable_prototypes(num_scans: int) -> int:
    """Returns K for a number of scans."""
    return next((number for limit, number in _PROTOTYPES if num_scans < limit), _MAX_PROTOTYPES)


def _group_parameters(network: nn.Module) -> list[dict[str, Any]]:
    """Groups the parameters by whether they decay; `decays` says so."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith("relative_position_bias_table")
            groups[decays].append(parameter)
    return [{"params": members, "decays": decays} for decays, members in groups.items()]


@torch.no_grad()
def _follow(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Moves the teacher towards the student."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)


def _arguments(instance: object) -> dict[str, Any]:
    """Returns what an object was built with, but for paths, which tell of the machine."""
    arguments = {}
    for name in inspect.signature(type(instance).__init__).parameters:
        value = getattr(instance, name, getattr(instance, f"_{name}", None))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        arguments[name] = value
    return {name: value for name, value in arguments.items() if name not in ("self", "store")}


def _by_view(logits: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Views the logits [V * B, K] as [V, B, K]."""
    return logits.unflatten(0, (-1, len(batch["number"])))


def _mix(*numbers: int) -> int:
    """Returns a seed that numbers which differ little do not share."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
