"""What shows, without labels, whether a training learns: measures, an alarm and their callback."""

import dataclasses
import math
import time
from typing import Any, Dict, List, Mapping

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as pl_callbacks
from loguru import logger
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.pretraining import curves, neighbours
from eva_coralbay.pretraining import module as module_lib

WINDOWS = ((-160.0, 240.0), (-1000.0, 1000.0))
"""The two HU windows (lower, upper) that the consistency is measured between."""

_WARMUP = 0.1
"""The part of all steps before which nothing is called a collapse."""

_UNIFORM = 0.99
"""From which part of ln K on the teacher's entropy means that all samples are alike to it."""

_SINGLE = 0.1
"""Below which part of ln K the entropy of the mean means that one prototype takes all."""

_MIN_RANK = 1.5
"""Below which RankMe of the embedding means that it has one direction left."""


def teacher_entropy(probs: torch.Tensor) -> torch.Tensor:
    """Returns the mean entropy of distributions of shape [..., K]: from 0, sure, to ln K."""
    return torch.special.entr(probs).sum(dim=-1).mean()


def rank_me(embeddings: torch.Tensor) -> torch.Tensor:
    """Returns the effective rank of embeddings, from 1 to the smaller of their axes.

    - RankMe: Assessing the downstream performance of pretrained self-supervised representations
      by their rank, https://arxiv.org/abs/2210.02885, equation 1

    Args:
        embeddings: Of different samples, of shape [N, E].
    """
    values = torch.linalg.svdvals(embeddings.float())
    return torch.special.entr(values / values.sum().clamp_min(1e-12)).sum().exp()


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


def find_collapse(values: Mapping[str, float], *, ln_k: float) -> Dict[str, str]:
    """Says whether the training has collapsed, and what to change.

    Args:
        values: The last values of the monitors, by name.
        ln_k: The logarithm of the number of prototypes.

    Returns:
        What was found, by the kind of the collapse; empty if all is well.
    """
    found = {}
    if values["teacher_entropy"] > _UNIFORM * ln_k:
        found["uniform"] = (
            f"the teacher gives all prototypes the same chance (entropy "
            f"{values['teacher_entropy']:.2f} of {ln_k:.2f}). Lower `teacher_temperature`, raise "
            "`lr`, or use fewer prototypes."
        )
    if values["mean_entropy"] < _SINGLE * ln_k:
        found["single prototype"] = (
            f"{values['prototypes_used']:.0f} prototypes take all samples (entropy of the mean "
            f"{values['mean_entropy']:.2f} of {ln_k:.2f}). Set `balance: sinkhorn_knopp`, raise "
            "`teacher_temperature`, or take a lower `centre_momentum`."
        )
    if values.get("rank_me", math.inf) < _MIN_RANK:
        found["dimensional"] = (
            f"the embedding has {values['rank_me']:.1f} directions left. Set `koleo_weight: 0.1`, "
            "lower `lr`, or take a larger batch."
        )
    return found


class Monitors(pl_callbacks.Callback):
    """Logs the monitors, draws their curves and warns of a collapse.

    It runs on the first rank alone, takes no random numbers and leaves the training as it is.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 1000,
        num_probes: int = 32,
        queue_size: int = 2048,
        knn: Dict[str, Any] | None = None,
    ) -> None:
        """Initializes the callback.

        Args:
            every_n_steps: The number of steps between two looks at what takes time: RankMe, HU
                consistency, neighbours, the picture of the curves. A multiple of the trainer's
                `log_every_n_steps`, at which all others are logged.
            num_probes: The number of regions for the HU consistency.
            queue_size: The number of the latest embeddings for RankMe.
            knn: The `class_path` and the `init_args` of a small labelled segmentation data set,
                whose organs are told apart by their nearest neighbours; none if None.
        """
        super().__init__()
        self._every_n_steps = every_n_steps
        self._num_probes = num_probes
        self._queue_size = queue_size
        self._knn = knn
        self._queue: List[torch.Tensor] = []
        self._probs: List[torch.Tensor] = []
        self._ended: float | None = None
        self._seconds = {"data": 0.0, "compute": 0.0}
        self._warned: set[str] = set()
        self._values: Dict[str, float] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.monitored = self._values
        if trainer.is_global_zero and trainer.global_step == 0:
            self._look(trainer, pl_module, step=0)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._seconds["data"] += 0.0 if self._ended is None else now - self._ended
        self._ended = now

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._probs.append(outputs["teacher_probs"].detach().flatten(0, 1))
        self._queue.append(outputs["embeddings"].detach())
        self._trim()
        self._count_seconds()
        step = trainer.global_step
        if (idx + 1) % trainer.accumulate_grad_batches:
            return
        if step % trainer.log_every_n_steps == 0:  # type: ignore[reportAttributeAccessIssue]
            self._log_batches(trainer, pl_module, step=step - 1)
        if step % self._every_n_steps == 0 or step == trainer.max_steps:
            self._look(trainer, pl_module, step=step - 1)
        self._ended = time.perf_counter()

    @override
    def state_dict(self) -> Dict[str, Any]:
        return {"values": dict(self._values), "queue": [part.cpu() for part in self._queue]}

    @override
    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        self._values = state_dict["values"]
        self._queue = state_dict["queue"]

    def _trim(self) -> None:
        """Forgets the oldest embeddings."""
        while sum(map(len, self._queue)) - len(self._queue[0]) >= self._queue_size:
            self._queue.pop(0)

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self._seconds["compute"] += 0.0 if self._ended is None else now - self._ended
        self._ended = now

    def _log_batches(self, trainer: pl.Trainer, pl_module: Any, *, step: int) -> None:
        """Logs what the batches since the last time say."""
        probs = torch.cat(self._probs)
        steps = len(self._probs) / trainer.accumulate_grad_batches
        values = {
            "teacher_entropy": float(teacher_entropy(probs)),
            "mean_entropy": float(teacher_entropy(probs.mean(dim=0))),
            "prototypes_used": float(len(probs.argmax(dim=1).unique())),
            **{f"{name}_seconds": value / steps for name, value in self._seconds.items()},
        }
        if pl_module.centre is not None:
            values["centre_norm"] = float(pl_module.centre.norm())
        self._probs = []
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._log(trainer, values, step=step)

    def _look(self, trainer: pl.Trainer, pl_module: Any, *, step: int) -> None:
        """Logs what takes time, draws the curves, and warns."""
        values = self._measure_consistency(pl_module)
        if self._queue:
            embeddings = torch.cat([part.to(pl_module.device) for part in self._queue])
            values["rank_me"] = float(rank_me(embeddings))
            for name, scale in _split_scales(embeddings, pl_module).items():
                values[f"rank_me_{name}"] = float(rank_me(scale))
        if self._knn is not None:
            values["knn_accuracy"] = neighbours.measure(pl_module, self._knn, window=WINDOWS[0])
        self._log(trainer, values, step=step)
        for trainer_logger in trainer.loggers:
            trainer_logger.save()
        curves.draw_curves(
            trainer.default_root_dir, ln_k=math.log(pl_module.num_prototypes)
        )
        if step > _WARMUP * trainer.max_steps:
            self._warn(pl_module)

    @torch.no_grad()
    def _measure_consistency(self, pl_module: Any) -> Dict[str, float]:
        """Embeds the middles of the probes in both windows, with the teacher."""
        size, data = pl_module.data.views.global_size, pl_module.data
        low = (data.views.region_size - size) // 2
        middle = slice(low, low + size)
        probes = data.probe(self._num_probes)[:, :, middle, middle, middle]
        first, second = (
            torch.cat([pl_module.embed(probe, window) for probe in probes.split(1)])
            for window in WINDOWS
        )
        measured = hu_consistency(first, second)
        return {
            "hu_same": measured.same,
            "hu_different": measured.different,
            "hu_consistency": measured.same - measured.different,
            "hu_retrieval": measured.retrieval,
        }

    def _warn(self, pl_module: Any) -> None:
        """Warns of each kind of collapse once, until it is over."""
        ln_k = math.log(pl_module.num_prototypes)
        found = find_collapse(self._values, ln_k=ln_k) if "mean_entropy" in self._values else {}
        for kind, advice in found.items():
            if kind not in self._warned:
                logger.warning(f"Collapse ({kind}): {advice}")
        self._warned = set(found)

    def _log(self, trainer: pl.Trainer, values: Dict[str, float], *, step: int) -> None:
        self._values.update(values)
        named = {f"monitor/{name}": value for name, value in values.items()}
        for trainer_logger in trainer.loggers:
            trainer_logger.log_metrics(named, step=step)


def _split_scales(
    embeddings: torch.Tensor, pl_module: "module_lib.Distillation"
) -> Dict[str, torch.Tensor]:
    """Splits multi-scale embeddings [N, E] by the map that they were pooled of."""
    if pl_module.scales == "last":
        return {}
    channels = pl_module.teacher.encoder.feature_channels
    pooled = [channels[index] for index in (0, 1, 2, 3, 5)]
    return {
        f"1_{2**index}": part
        for index, part in zip((0, 1, 2, 3, 5), embeddings.split(pooled, dim=1), strict=True)
    }
