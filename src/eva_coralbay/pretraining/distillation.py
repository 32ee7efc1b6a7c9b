"""The self-distillation of an encoder: its options, its networks and the losses of a batch.

Nothing here knows a trainer: `module.Distillation` adds Lightning's hooks, and
`plain_loop.PlainLoop` trains without Lightning.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from eva.core.models import modules
from torch import optim
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import swin
from eva_coralbay.pretraining import loss, networks, schedules, views
from eva_coralbay.pretraining import masking as masking_lib

_BASE_BATCH = 256
"""The effective batch that the learning rate is stated for."""


class Progress(NamedTuple):
    """Where a training stands, as its trainer or a plain loop says."""

    step: int
    """The step, from 0."""

    steps: int
    """The number of all steps, which the schedules are for."""

    effective_batch: int
    """The number of samples of a step, over all ranks and accumulated batches."""

    views: views.Views
    """The views of a sample."""


class Losses(NamedTuple):
    """What a batch comes to."""

    total: torch.Tensor
    """What is minimized, a scalar with a gradient."""

    named: dict[str, torch.Tensor]
    """Its parts, without gradients: `loss`, the cross-entropy; `kl`, that less the entropy of the
    targets, which does not depend on how sharp they are; `koleo` and `masked` where they are."""

    teacher_logits: torch.Tensor
    """The teacher's logits of the global views, before they are balanced, of shape [2, B, K]."""

    teacher_probs: torch.Tensor
    """The targets, of shape [2, B, K]."""


class SelfDistillation(modules.ModelModule):
    """A student that learns to predict, from any view, what its teacher makes of a global one.

    Student and teacher are an encoder and a head each. The teacher is the running mean of the
    student, starts as a copy of it and sees the global views only.

    - CoralBay: A Self-Supervised CT Foundation Model, https://arxiv.org/abs/2606.03888
    - Emerging Properties in Self-Supervised Vision Transformers, https://arxiv.org/abs/2104.14294
    """

    student: networks.Network
    teacher: networks.Network
    targets: loss.Centering | loss.SinkhornKnopp

    def __init__(
        self,
        *,
        feature_size: int = 48,
        patch_merging: swin.PatchMergingVariant | None = None,
        scales: networks.Scales = "multi",
        num_prototypes: int | Literal["auto"] = "auto",
        head_dims: tuple[int, int, int] = (2048, 2048, 256),
        balance: Literal["centering", "sinkhorn_knopp"] = "centering",
        queue_size: int = 0,
        center_momentum: float = 0.9,
        koleo_weight: float = 0.0,
        masking: masking_lib.Masking | None = None,
        student_temperature: float = 0.1,
        teacher_temperature: schedules.Schedule | None = None,
        momentum: schedules.Schedule | None = None,
        momentum_batch: int | None = None,
        lr: schedules.Schedule | None = None,
        weight_decay: schedules.Schedule | None = None,
        clip_norm: float = 3.0,
        clip_by: Literal["whole", "parameter"] = "whole",
        drop_path_rate: float = 0.1,
        freeze_prototypes_steps: int = 1250,
        init_from: str | None = None,
        warm_heads_steps: int | None = None,
        activation_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        """Initializes the module; the networks are built when the data are known.

        Args:
            feature_size: Channels of the encoder's finest map, a multiple of 12.
            patch_merging: How the encoder merges patches. If None, as the weights of `init_from`
                state (`legacy` if they do not, with a warning); without them `octants`.
            scales: What is distilled: the concatenated embedding of all scales (`multi`), or that
                of the last stage (`last`).
            num_prototypes: The number of prototypes, K; `auto` takes it from the number of scans,
                and with Sinkhorn-Knopp no more than there are global views in a step of all ranks
                and logits in the queue.
            head_dims: The widths of the head's two hidden layers and of its bottleneck.
            balance: What keeps the teacher from collapse.
            queue_size: How many of the teacher's latest logits Sinkhorn-Knopp balances together
                with those of a batch, for small batches (SwAV, section 5.1); 0 for none.
            center_momentum: How much of the center stays at each step.
            koleo_weight: The weight of the KoLeo regularizer; 0 for none.
            masking: A masked term on the map at 1/16, as in iBOT and SMIT; none if None.
            student_temperature: The temperature of the student.
            teacher_temperature: The temperature of the teacher.
            momentum: How much of the teacher stays at each step. DINO advises 0.9995 for a batch of
                256 and has 0.996 for 1024 (`--momentum_teacher` in `main_dino.py`).
            momentum_batch: The effective batch that `momentum` is for: with another one it is
                raised to the power of batch / momentum_batch, so that the teacher follows as fast
                in samples (How to Scale Your EMA, https://arxiv.org/abs/2307.13813, definition
                1.2). If None, `momentum` is for any batch.
            lr: The learning rate for an effective batch of 256; it scales with the batch.
            weight_decay: The weight decay, for all but biases, norms and position biases.
            clip_norm: The norm to which the gradient is clipped.
            clip_by: Whether that is the norm of the gradient as a whole, or that of each
                parameter, as in DINO.
            drop_path_rate: The stochastic depth of the student's last block.
            freeze_prototypes_steps: For how many steps the prototypes stay as they are.
            init_from: Weights that the encoder starts from (file, folder, Hub id, or a name of
                `eva-coralbay models`) in place of random ones, of any encoder of the Swin UNETR
                family and of the same size.
            warm_heads_steps: For how many steps the heads alone are trained, as the gradients of
                untrained heads would spoil the features of `init_from`. If None, with `init_from`
                as long as the prototypes stay, but for a tenth of the steps at most; else none.
            activation_checkpointing: Whether the student recomputes its activations in the
                backward pass, which saves memory and takes time.
            seed: What the initial weights and drop-path follow from.
        """
        super().__init__()
        self.scales: networks.Scales = scales
        self.num_prototypes: int | Literal["auto"] = num_prototypes
        self._picks_prototypes = num_prototypes == "auto"
        self._feature_size = feature_size
        self._patch_merging: swin.PatchMergingVariant | None = patch_merging
        self._use_v2: bool | None = None
        self._follows_weights = patch_merging is None
        self._head_dims = head_dims
        self._balance = balance
        self._queue_size = queue_size
        self._masking = masking
        self._momentum_batch = momentum_batch
        self._clip_by: Literal["whole", "parameter"] = clip_by
        self._init_from = init_from
        self._warm_heads_steps = warm_heads_steps
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
        self._activation_checkpointing = activation_checkpointing
        self._seed = seed
        self._progress: Progress | None = None
        if queue_size and balance != "sinkhorn_knopp":
            raise EvaCoralbayError(
                f"`queue_size: {queue_size}` is for `balance: sinkhorn_knopp`; with "
                f"`balance: {balance}` set it to 0."
            )

    @property
    def progress(self) -> Progress:
        """Where the training stands; whoever trains sets it before each step."""
        if self._progress is None:
            raise RuntimeError("`progress` is to be set before a step is computed.")
        return self._progress

    @progress.setter
    def progress(self, value: Progress) -> None:
        self._progress = value

    def build(self, *, num_scans: int, batch_size: int | None = None) -> None:
        """Builds student and teacher, with the weights that the seed decides.

        Args:
            num_scans: The number of scans, which decides K if it is `auto`.
            batch_size: The number of samples that all ranks balance at a time, for the same.
        """
        if self._picks_prototypes:
            balanced = None
            if self._balance == "sinkhorn_knopp" and batch_size is not None:
                balanced = views.NUM_GLOBALS * batch_size + self._queue_size
            self.num_prototypes = networks.suitable_prototypes(num_scans, balanced=balanced)
        self._build(init_from=self._init_from)

    def settle_warm_up(self, steps: int) -> None:
        """Decides for how many steps the heads alone are trained, and checks that some are left.

        Args:
            steps: The number of all steps.

        Raises:
            EvaCoralbayError: If the encoder would not be trained.
        """
        if self._warm_heads_steps is None:
            most = min(self._freeze_prototypes_steps, max(1, steps // 10))
            self._warm_heads_steps = 0 if self._init_from is None else most
        if self._warm_heads_steps >= steps:
            raise EvaCoralbayError(
                f"`warm_heads_steps` (WARM_HEADS_STEPS) is {self._warm_heads_steps}, and there are "
                f"{steps} steps (MAX_STEPS): the encoder would not be trained."
            )

    def _build(self, *, init_from: str | None) -> None:
        """Builds the networks for the number of prototypes."""
        number = int(self.num_prototypes)
        architecture = networks.Architecture(
            feature_size=self._feature_size,
            patch_merging=self._patch_merging,
            use_v2=self._use_v2,
            scales=self.scales,
            num_prototypes=number,
            head_dims=self._head_dims,
            masking=self._masking,
            drop_path_rate=self._drop_path_rate,
            activation_checkpointing=self._activation_checkpointing,
        )
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            self.student = architecture.build(trained=True, init_from=init_from)
        own = self.student.encoder
        self._patch_merging, self._use_v2 = own.patch_merging, own.use_v2
        alike = architecture._replace(patch_merging=own.patch_merging, use_v2=own.use_v2)
        self.teacher = alike.build(trained=False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.targets = (
            loss.SinkhornKnopp(number, queue_size=self._queue_size)
            if self._balance == "sinkhorn_knopp"
            else loss.Centering(number, momentum=self._center_momentum)
        )
        if self._masking is not None:
            self.masked_term = masking_lib.MaskedTerm(self._masking)

    @override
    def configure_optimizers(self) -> optim.Optimizer:
        groups = networks.group_parameters(self.student)
        return optim.AdamW(groups, lr=self._lr.peak, betas=(0.9, 0.999))

    def set_rates(self, optimizer: optim.Optimizer) -> None:
        """Sets learning rate and weight decay of this step."""
        lr = self._at(self._lr.scaled(self.progress.effective_batch / _BASE_BATCH))
        weight_decay = self._at(self._weight_decay)
        for group in optimizer.param_groups:
            group["lr"] = lr
            group["weight_decay"] = weight_decay if group["decays"] else 0.0

    def compute_losses(self, batch: dict[str, Any]) -> Losses:
        """Computes the losses of a batch, whose views are rendered on its device.

        Args:
            batch: What the data module yields, on the device of the networks.
        """
        # of this step and rank alone, so that a resumed run draws what an undisturbed one does
        torch.manual_seed(_mix(self._seed, int(batch["number"][0])))
        temperature = self._at(self._teacher_temperature)
        global_views, local_views = self._render(batch)
        with torch.no_grad():
            embeddings, tokens = self._encode(self.teacher, global_views)
            logits = _by_view(self.teacher.head(embeddings), batch)
            probs = self.targets(logits, temperature=temperature)
        masks = self._draw_masks(global_views)
        shown = global_views if masks is None else masking_lib.hide(global_views, masks)
        student, student_tokens = self._encode(self.student, shown)
        others = [self.student.encoder(view) for view in local_views]
        value = loss.distillation_loss(
            probs,
            _by_view(self.student.head(torch.cat([student, *others])), batch),
            temperature=self._student_temperature,
        )
        named = {"loss": value, "kl": value - loss.entropy(probs)}
        total = value
        if self._koleo_weight > 0.0:
            koleo = torch.stack([loss.koleo_loss(v) for v in student.chunk(views.NUM_GLOBALS)])
            named["koleo"] = koleo.sum()
            total = total + self._koleo_weight * named["koleo"]
        if masks is not None and tokens is not None and student_tokens is not None:
            named["masked"] = self._compute_masked(tokens, student_tokens, masks, temperature)
            total = total + self.masked_term.masking.weight * named["masked"]
        detached = {name: part.detach() for name, part in named.items()}
        return Losses(total, detached, logits, probs)

    def _encode(
        self, network: networks.Network, global_views: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the embeddings of global views, and their tokens if there is a masked term."""
        if self._masking is None:
            return network.encoder(global_views), None
        embeddings, maps = network.encoder.forward_intermediates(global_views)
        return embeddings, maps[masking_lib.MAP]

    def _draw_masks(self, global_views: torch.Tensor) -> torch.Tensor | None:
        """Draws the masks of the student's global views, if there is a masked term."""
        if self._masking is None:
            return None
        number, size = len(global_views), global_views.shape[-1]
        masks = masking_lib.draw_masks(self._masking, views=number, size=size)
        return masks.to(global_views.device)

    def _compute_masked(
        self,
        teacher_tokens: torch.Tensor,
        student_tokens: torch.Tensor,
        masks: torch.Tensor,
        temperature: float,
    ) -> torch.Tensor:
        """Computes the masked term."""
        hidden = masking_lib.hidden_tokens
        with torch.no_grad():
            targets = self.teacher.token_head(hidden(teacher_tokens, masks))
        return self.masked_term(
            targets,
            self.student.token_head(hidden(student_tokens, masks)),
            teacher_temperature=temperature,
            student_temperature=self._student_temperature,
        )

    def clip_gradient(self) -> torch.Tensor:
        """Drops the gradients of frozen parameters, and clips the others.

        Returns:
            The norm of the gradient as a whole, before it is clipped, a scalar.
        """
        step = self.progress.step
        if step < self._freeze_prototypes_steps:
            self.student.head.prototypes.grad = None
        if step < (self._warm_heads_steps or 0):
            for parameter in self.student.encoder.parameters():
                parameter.grad = None
        return networks.clip_gradient(self.student, self._clip_norm, by=self._clip_by)

    def end_step(self, *, momentum: float | None = None, is_taken: bool = True) -> None:
        """Moves the teacher and its targets after a step of the optimizer.

        Args:
            momentum: How much of the teacher stays; that of this step if None.
            is_taken: False for a step that is left out.
        """
        if is_taken:
            stays = self._at_momentum() if momentum is None else momentum
            networks.follow(self.teacher, self.student, momentum=stays)
        self.targets.end_step(is_taken=is_taken)
        if self._masking is not None:
            self.masked_term.targets.end_step(is_taken=is_taken)

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

    @torch.no_grad()
    def standardize_heads(self, batch: dict[str, Any]) -> None:
        """Fits the scale of the heads to the embeddings of the encoder as it starts.

        Args:
            batch: Samples, on the device of the networks.
        """
        torch.manual_seed(self._seed)
        global_views, _ = self._render(batch)
        encoded = [self._encode(self.teacher, view) for view in global_views.split(1)]
        parts = self.teacher.encoder.embedding_parts
        self.student.head.standardize(torch.cat([found for found, _ in encoded]), parts=parts)
        tokens = [found.movedim(1, -1).flatten(0, -2) for _, found in encoded if found is not None]
        if tokens:
            joint = torch.cat(tokens)
            self.student.token_head.standardize(joint, parts=[joint.shape[1]])
        for name in ("head", "token_head")[: 1 + bool(tokens)]:
            getattr(self.teacher, name).load_state_dict(getattr(self.student, name).state_dict())

    def _render(self, batch: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Renders the views, each of shape [V * B, 1, G, G, G], all first ones first.

        Returns:
            The global views, and a list with the local views if there are any.
        """
        sizes = self.progress.views
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
        return schedule.at(self.progress.step, steps=self.progress.steps)

    def _at_momentum(self) -> float:
        """Returns the momentum of this step, for its batch."""
        if self._momentum_batch is None:
            return self._at(self._momentum)
        return self._at(self._momentum) ** (self.progress.effective_batch / self._momentum_batch)


def _by_view(logits: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Views the logits [V * B, K] as [V, B, K]."""
    return logits.unflatten(0, (-1, len(batch["number"])))


def _mix(*numbers: int) -> int:
    """Returns a seed that numbers which differ little do not share."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
