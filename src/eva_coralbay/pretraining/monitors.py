"""What shows, without labels, whether a training learns: measures, an alarm and their callback."""

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as pl_callbacks
from loguru import logger
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.pretraining import curves, loss, neighbors
from eva_coralbay.pretraining import module as module_lib

WINDOWS = ((-160.0, 240.0), (-1000.0, 1000.0))
"""The two HU windows (lower, upper) that the consistency is measured between."""

_PROTOTYPE_WINDOW = 16384
"""How many of the latest samples the prototypes in use are counted in: as many as prototypes."""

MIN_STEPS = 20
"""The number of steps before which nothing is called a collapse: the teacher begins uniform, and
with a momentum of 0.99 it has taken over less than a fifth of the student after 20."""

_WARMUP = 0.1
"""The part of all steps before which nothing is called a collapse: the teacher begins uniform."""

_LEARNING = 0.3
"""The part of all steps before which the two views of a sample need not agree.

Those of an untrained encoder hardly do: r is 0.006 with all augmentation.
"""

_UNIFORM = 0.99
"""From which part of ln K on the teacher's entropy means that all samples are alike to it."""

_SINGLE = 0.1
"""Below which part of ln K the entropy of the mean means that one prototype takes all."""

_MIN_AGREEMENT = 0.02
"""Below which the agreement of two views is that of noise."""

_MIN_VARIANCE = 1e-12
"""Below which the variance of the logits is that of rounding."""

_MIN_RANK = 1.5
"""Below which RankMe of the embedding means that it has one direction left."""

_KEPT_RANK = 0.2
"""Below which part of its value at the start RankMe means that most directions are lost."""


def count_prototypes(nearest: torch.Tensor) -> tuple[int, float]:
    """Counts the prototypes in use.

    Args:
        nearest: The prototype of the largest probability of each sample, of shape [N].

    Returns:
        How many prototypes are that of a sample, and their effective number: exp of the entropy
        of how often each one is, which equals the first if all are so equally often.
    """
    _, counts = nearest.unique(return_counts=True)
    return len(counts), float(torch.special.entr(counts / len(nearest)).sum().exp())


def rank_me(embeddings: torch.Tensor) -> torch.Tensor:
    """Returns the effective rank of embeddings, from 1 to the smaller of their axes.

    - RankMe: Assessing the downstream performance of pretrained self-supervised representations
      by their rank, https://arxiv.org/abs/2210.02885, equation 1

    Args:
        embeddings: Of different samples, of shape [N, E].
    """
    values = torch.linalg.svdvals(embeddings.float())
    return torch.special.entr(values / values.sum().clamp_min(1e-12)).sum().exp()


def view_covariance(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns how much of the logits of a sample its two views share, and how much there is.

    The first is the covariance of the two views over the samples, summed over the prototypes; the
    second the mean of their variances. Both are without bias for any number of samples from two,
    so that those of small batches may be added up. Their quotient is the agreement of the views:
    1 where a sample decides, and 0 where its two views have no more in common than those of two
    samples, as with a teacher that says the same of all but for noise.

    Args:
        logits: Of two views of the same samples, before they are balanced, of shape [2, B, K].
    """
    number = logits.shape[1]
    if number < 2:
        return logits.new_zeros(()), logits.new_zeros(())
    parts = logits.float() - logits.float().mean(dim=1, keepdim=True)
    shared = (parts[0] * parts[1]).sum() / (number - 1)
    return shared, parts.square().sum() / (2 * (number - 1))


@dataclasses.dataclass(frozen=True)
class HUConsistency:
    """How alike the embeddings of crops are in two HU windows, all less their mean."""

    same: float
    """The mean cosine of the two embeddings of a crop."""

    different: float
    """The mean cosine of the embeddings of different crops."""

    retrieval: float
    """The part of the crops whose nearest one in the other window is itself."""


def hu_consistency(first: torch.Tensor, second: torch.Tensor) -> HUConsistency:
    """Compares embeddings of the same crops in two windows.

    Args:
        first: In the one window, of shape [N, E].
        second: In the other window, of shape [N, E], in the same order.
    """
    mean = torch.cat([first, second]).mean(dim=0)
    cosines = functional.normalize(first - mean) @ functional.normalize(second - mean).T
    number = len(cosines)
    same = cosines.diagonal().mean()
    different = (cosines.sum() - cosines.trace()) / (number * (number - 1))
    found = cosines.argmax(dim=1) == torch.arange(number, device=cosines.device)
    return HUConsistency(float(same), float(different), float(found.float().mean()))


def find_collapse(values: Mapping[str, float]) -> dict[str, str]:
    """Says whether the training has collapsed, and what to change.

    It takes 20 steps of evidence, as the teacher begins uniform, and finds nothing in a shorter
    training. The agreement of two views is judged when 30 % of all steps are done.

    Args:
        values: The last values of the monitors, by name; those that are missing are not judged.
            `ln_k` and, as the part of the steps that are done, `progress` must be there; their
            number is `steps`, and enough if it is missing.

    Returns:
        What was found, by the kind of the collapse; empty if all is well.
    """
    if values.get("steps", math.inf) < MIN_STEPS:
        return {}
    found = {}
    ln_k = values["ln_k"]
    if values.get("teacher_entropy", 0.0) > _UNIFORM * ln_k:
        found["uniform"] = (
            f"the teacher gives all prototypes the same chance (entropy "
            f"{values['teacher_entropy']:.2f} of {ln_k:.2f}), and the loss stays at that. Lower "
            "`teacher_temperature`, raise `lr`, or use fewer prototypes."
        )
    if values.get("mean_entropy", ln_k) < _SINGLE * ln_k:
        found["single prototype"] = (
            f"nearly all samples have the same prototype (entropy of the mean "
            f"{values['mean_entropy']:.2f} of {ln_k:.2f}), and the loss falls to 0. Set `balance: "
            "sinkhorn_knopp`, raise `teacher_temperature`, or take a lower `center_momentum`."
        )
    elif values.get("view_agreement", 1.0) < _MIN_AGREEMENT and values["progress"] >= _LEARNING:
        found["constant teacher"] = (
            f"the teacher says the same of all samples but for noise: its logits of two views of a "
            f"sample agree no more than those of two samples (r = {values['view_agreement']:.3f}). "
            "It has collapsed to one output, or has learned nothing yet: compare `train/kl` and "
            "the HU consistency with their values at the start. Raise `lr`, start with less "
            "augmentation (`augmentation_warmup`), or take a larger batch or a queue."
        )
    rank, at_start = values.get("rank_me", math.inf), values.get("rank_me_start", 0.0)
    if rank < max(_MIN_RANK, _KEPT_RANK * at_start):
        found["dimensional"] = (
            f"the embedding has {rank:.1f} directions left, of {at_start:.1f} of the untrained "
            "encoder. Set `koleo_weight: 0.1`, lower `lr`, or take a larger batch."
        )
    return found


class Monitors(pl_callbacks.Callback):
    """Logs the monitors, draws their curves and warns of a collapse, from 20 steps on.

    It looks at the samples of the first rank alone, takes no random numbers and leaves the training
    as it is. A run that was interrupted logs what an undisturbed one does, but for the seconds.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 1000,
        num_probes: int = 64,
        knn: dict[str, Any] | None = None,
    ) -> None:
        """Initializes the callback.

        Args:
            every_n_steps: The number of steps between two looks at what takes time: RankMe, HU
                consistency, neighbors, the picture of the curves. All others are logged as often
                as the trainer logs.
            num_probes: The number of regions for RankMe and the HU consistency, of the scans that
                are held out if there are any (`held_out` of the data). The first look is before
                the first step, so the curves begin with the untrained encoder's values.
            knn: The `class_path` and the `init_args` of a small labeled segmentation data set,
                whose organs are told apart by their nearest neighbors; none if None.
        """
        super().__init__()
        self._every_n_steps = every_n_steps
        self._num_probes = num_probes
        self._knn = knn
        self._nearest: list[torch.Tensor] = []
        self._since_logged = TeacherStatistics()
        self._values: dict[str, float] = {}
        self._warned: list[str] = []
        self._seconds: dict[str, list[float]] = {"data": [], "compute": []}
        self._clock: float | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.monitored = self._values
        if not trainer.is_global_zero:
            return
        values = {"ln_k": math.log(pl_module.num_prototypes)}
        self._log(trainer, values, step=trainer.global_step)
        if trainer.global_step == 0:
            self._look(trainer, pl_module, step=0)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._stop_clock("data")

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._stop_clock("compute")
        self._remember(outputs["teacher_logits"], outputs["teacher_probs"])
        if (idx + 1) % trainer.accumulate_grad_batches == 0:
            self._end_step(trainer, pl_module)
        self._clock = time.perf_counter()

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # what follows is neither data nor compute
        self._clock = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "nearest": [part.cpu() for part in self._nearest],
            "since_logged": self._since_logged.state(),
            "values": dict(self._values),
            "warned": list(self._warned),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._nearest = state_dict["nearest"]
        known = {field.name for field in dataclasses.fields(TeacherStatistics)}
        stated = state_dict["since_logged"]
        self._since_logged = TeacherStatistics(
            **{name: stated[name] for name in known if name in stated}
        )
        self._values = state_dict["values"]
        self._warned = state_dict["warned"]

    def _stop_clock(self, name: str) -> None:
        """Keeps the seconds since the clock was last stopped, if it runs, and starts it again."""
        now = time.perf_counter()
        if self._clock is not None:
            self._seconds[name].append(now - self._clock)
        self._clock = now

    def _remember(self, logits: torch.Tensor, probs: torch.Tensor) -> None:
        """Keeps what a batch says, on its device."""
        self._since_logged.add(logits, probs)
        _push(self._nearest, probs.flatten(0, 1).argmax(dim=1), size=_PROTOTYPE_WINDOW)

    def _end_step(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Logs what is due after a step of the optimizer."""
        step = trainer.global_step
        looks = step % self._every_n_steps == 0 or step == trainer.max_steps
        logs = step % trainer.log_every_n_steps == 0  # type: ignore[reportAttributeAccessIssue]  # Lightning adds it later
        if logs or looks:
            self._log_batches(trainer, pl_module, step=step - 1)
        if looks:
            self._look(trainer, pl_module, step=step - 1)

    def _log_batches(self, trainer: pl.Trainer, pl_module: Any, *, step: int) -> None:
        """Logs what the batches since the last time say."""
        values = {
            f"{name}_seconds": statistics.fmean(parts) * trainer.accumulate_grad_batches
            for name, parts in self._seconds.items()
            if parts
        }
        if pl_module.center is not None:
            values["center_norm"] = float(pl_module.center.norm())
        values |= self._since_logged.describe()
        if self._nearest:
            # those of a checkpoint are on the CPU
            nearest = torch.cat([part.to(pl_module.device) for part in self._nearest])
            used, effective = count_prototypes(nearest)
            values |= {"prototypes_used": float(used), "prototypes_effective": effective}
        self._since_logged = TeacherStatistics()
        self._seconds = {name: [] for name in self._seconds}
        self._log(trainer, values, step=step)

    def _look(self, trainer: pl.Trainer, pl_module: Any, *, step: int) -> None:
        """Logs what takes time, draws the curves, and warns."""
        values = self._measure_probes(pl_module)
        if step == 0 and "rank_me_start" not in self._values:
            values["rank_me_start"] = values["rank_me"]
        if self._knn is not None:
            values["knn_accuracy"] = neighbors.measure(pl_module, self._knn, window=WINDOWS[0])
        self._log(trainer, values, step=step)
        for trainer_logger in trainer.loggers:
            trainer_logger.save()
        curves.draw_curves(trainer.default_root_dir)
        progress = step / trainer.max_steps
        if progress >= _WARMUP:
            self._warn(progress, step + 1)

    @torch.no_grad()
    def _measure_probes(self, pl_module: Any) -> dict[str, float]:
        """Embeds the middles of the probes in both windows, with the teacher."""
        size, data = pl_module.data.views.global_size, pl_module.data
        low = (data.views.region_size - size) // 2
        middle = slice(low, low + size)
        probes = data.probe(self._num_probes)[:, :, middle, middle, middle]
        first, second = (
            torch.cat([pl_module.embed(probe, window) for probe in probes.split(1)])
            for window in WINDOWS
        )
        measured, embeddings = hu_consistency(first, second), torch.cat([first, second])
        return {
            "hu_same": measured.same,
            "hu_different": measured.different,
            "hu_consistency": measured.same - measured.different,
            "hu_retrieval": measured.retrieval,
            "rank_me": float(rank_me(embeddings)),
            **{
                f"rank_me_{name}": float(rank_me(scale))
                for name, scale in _split_scales(embeddings, pl_module).items()
            },
        }

    def _warn(self, progress: float, steps: int) -> None:
        """Warns of each kind of collapse once, until it is over."""
        found = find_collapse({**self._values, "progress": progress, "steps": steps})
        for kind, advice in found.items():
            if kind not in self._warned:
                logger.warning(f"Collapse ({kind}): {advice}")
        self._warned = list(found)

    def _log(self, trainer: pl.Trainer, values: dict[str, float], *, step: int) -> None:
        self._values.update(values)
        named = {f"monitor/{name}": value for name, value in values.items()}
        for trainer_logger in trainer.loggers:
            trainer_logger.log_metrics(named, step=step)


@dataclasses.dataclass
class TeacherStatistics:
    """What the teacher made of some samples: their distributions are too large to keep.

    The sums stay on the device, so that no step waits for it. A batch that is not finite is left
    out, as the training leaves it out.
    """

    samples: torch.Tensor | float = 0.0
    """The number of samples."""

    entropy: torch.Tensor | float = 0.0
    """The sum of the entropies of their distributions."""

    probs: torch.Tensor | float = 0.0
    """The sum of their distributions, of shape [K]."""

    compared: torch.Tensor | float = 0.0
    """The number of samples that had another one in their batch."""

    shared: torch.Tensor | float = 0.0
    """The sum of the covariances of two views."""

    variance: torch.Tensor | float = 0.0
    """The sum of the variances of the logits."""

    def add(self, logits: torch.Tensor, probs: torch.Tensor) -> None:
        """Adds the logits and the distributions of further samples, each of shape [2, B, K]."""
        number = math.prod(probs.shape[:2])
        is_finite = probs.isfinite().all() & logits.isfinite().all()
        shared, variance = view_covariance(logits)
        parts = {
            "samples": probs.new_tensor(number),
            "entropy": number * loss.entropy(probs),
            "probs": probs.sum(dim=(0, 1)),
            "compared": probs.new_tensor(number if probs.shape[1] > 1 else 0),
            "shared": shared,
            "variance": variance,
        }
        for name, part in parts.items():
            total = getattr(self, name)
            total = total.to(part.device) if isinstance(total, torch.Tensor) else total
            setattr(self, name, total + torch.where(is_finite, part, 0.0))

    def state(self) -> dict[str, torch.Tensor | float]:
        """Returns the sums, on the CPU."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value.cpu() if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }

    def describe(self) -> dict[str, float]:
        """Returns entropies and agreement by name; none if there was no sample."""
        if not isinstance(self.probs, torch.Tensor) or not float(self.samples):
            return {}
        values = {
            "teacher_entropy": float(self.entropy / self.samples),
            "mean_entropy": float(loss.entropy(self.probs / self.samples)),
        }
        if float(self.compared):
            values["view_agreement"] = float(self.shared / max(float(self.variance), _MIN_VARIANCE))
        return values


def _push(queue: list[torch.Tensor], part: torch.Tensor, *, size: int) -> None:
    """Adds rows to a queue, and removes its oldest parts as long as so many rows remain."""
    queue.append(part)
    while sum(map(len, queue)) - len(queue[0]) >= size:
        queue.pop(0)


def _split_scales(
    embeddings: torch.Tensor, pl_module: "module_lib.Distillation"
) -> dict[str, torch.Tensor]:
    """Splits multi-scale embeddings [N, E] by the map that they were pooled of."""
    if pl_module.scales == "last":
        return {}
    parts = embeddings.split(pl_module.teacher.encoder.embedding_parts, dim=1)
    return {f"1_{2**index}": part for index, part in zip((0, 1, 2, 3, 5), parts, strict=True)}
