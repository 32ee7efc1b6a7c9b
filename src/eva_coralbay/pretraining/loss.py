"""What the student is taught: DINO's cross-entropy, its targets and the KoLeo regularizer.

All of it is computed in float32, under autocast too. In distributed training the targets follow
from the logits of all ranks, so that the result is that of one process with the joint batch.
"""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional


def distillation_loss(
    teacher_probs: torch.Tensor, student_logits: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Computes the cross-entropy between each teacher's view and each other view of the student.

        loss = mean over t, s != t and the batch of  -sum_k P_t[k] log softmax(z_s / T)[k]

    `DINOLoss` in `main_dino.py` of the reference implementation of DINO [0].

    - [0] Emerging Properties in Self-Supervised Vision Transformers,
      https://arxiv.org/abs/2104.14294, equation 3

    Args:
        teacher_probs: The targets of the global views, of shape [T, B, K].
        student_logits: The logits of all views, the global ones first and in the same order, of
            shape [S, B, K].
        temperature: The temperature of the student.

    Returns:
        The loss, a scalar. It is ln K when both are uniform.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        log_probs = functional.log_softmax(student_logits.float() / temperature, dim=-1)
        pairs = -torch.einsum("tbk,sbk->ts", teacher_probs.float(), log_probs)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    terms = pairs.numel() - min(pairs.shape)
    return pairs.masked_fill(same, 0.0).sum() / (terms * teacher_probs.shape[1])


def entropy(probs: torch.Tensor) -> torch.Tensor:
    """Returns the mean entropy of distributions of shape [..., K]: from 0, sure, to ln K."""
    return torch.special.entr(probs).sum(dim=-1).mean()


class Centering(nn.Module):
    """Targets by subtracting the running mean of the teacher's logits, as in DINO.

    The center moves once an optimizer step, so that accumulated batches are as one.
    """

    center: torch.Tensor

    def __init__(self, num_prototypes: int, *, momentum: float = 0.9) -> None:
        """Initializes the center with zeros.

        Args:
            num_prototypes: The number of prototypes, K.
            momentum: How much of the center stays at each step.
        """
        super().__init__()
        self._momentum = momentum
        self._means: list[torch.Tensor] = []
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.register_load_state_dict_pre_hook(_rename_center)

    def forward(self, logits: torch.Tensor, *, temperature: float) -> torch.Tensor:
        """Computes the targets, and keeps the mean of the logits for :meth:`end_step`.

        Args:
            logits: The teacher's, of shape [T, B, K].
            temperature: The temperature of the teacher.

        Returns:
            The probabilities, of shape [T, B, K].
        """
        self._means.append(logits.float().mean(dim=(0, 1)))
        return functional.softmax((logits.float() - self.center) / temperature, dim=-1)

    def end_step(self, *, is_taken: bool = True) -> None:
        """Moves the center towards the mean of all logits of the step, of all ranks.

        Args:
            is_taken: False for a step that is left out: then the center stays as it is.
        """
        if is_taken:
            mean = _sum_over_ranks(torch.stack(self._means).mean(dim=0)) / _world_size()
            self.center.lerp_(mean, 1.0 - self._momentum)
        self._means.clear()


class SinkhornKnopp(nn.Module):
    """Targets that use all prototypes equally, by three Sinkhorn-Knopp iterations.

    The prototypes are balanced over the batch of all ranks, and over the latest logits of the
    teacher if there is a queue; batches that are accumulated are balanced each by itself. With far
    fewer samples than prototypes the entropy of the targets follows from these numbers, not from
    what the teacher has learned: SwAV balances 3000 prototypes over batches of 4096, and over a
    queue of 3840 where the batch is 256.

    - Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
      https://arxiv.org/abs/2006.09882, appendix A and section 5.1 (queue); `distributed_sinkhorn`
      in `main_swav.py`
    """

    _ITERATIONS = 3

    queue: torch.Tensor

    def __init__(self, num_prototypes: int, *, queue_size: int = 0) -> None:
        """Initializes an empty queue.

        Args:
            num_prototypes: The number of prototypes, K.
            queue_size: How many of the latest logits are balanced with those of a batch.
        """
        super().__init__()
        self._added: list[torch.Tensor] = []
        # a logit of -inf is not a sample
        empty = torch.full((queue_size, num_prototypes), -torch.inf)
        # checkpoints without a queue know no such tensor
        self.register_buffer("queue", empty, persistent=queue_size > 0)

    def forward(self, logits: torch.Tensor, *, temperature: float) -> torch.Tensor:
        """Computes the targets, and keeps the logits for :meth:`end_step` if there is a queue.

        Args:
            logits: The teacher's, of shape [T, B, K].
            temperature: The temperature of the teacher.

        Returns:
            The probabilities, of shape [T, B, K]. Their sum over all views, ranks and the queue is
            about the same for each prototype.
        """
        own = logits.float().flatten(0, 1)
        if len(self.queue):
            self._added.append(own.detach())
        scores = torch.cat([own, self.queue]) / temperature
        assignment = torch.exp(scores - _max_over_ranks(scores.max()))
        samples = len(own) * _world_size() + self.queue[:, :1].isfinite().sum()
        for _ in range(self._ITERATIONS):
            # the queue is the same on all ranks, so it counts once
            mass = _sum_over_ranks(assignment[: len(own)].sum(dim=0))
            # prototypes that nothing is near to would otherwise be divided by zero
            columns = (mass + assignment[len(own) :].sum(dim=0)).clamp_min(1e-30)
            assignment = assignment * (samples / len(columns) / columns)
            rows = assignment.sum(dim=1, keepdim=True)
            assignment = assignment / torch.where(rows == 0.0, 1.0, rows)
        return assignment[: len(own)].view_as(logits)

    def end_step(self, *, is_taken: bool = True) -> None:
        """Puts the logits of the step, of all ranks, into the queue, and removes the oldest ones.

        Args:
            is_taken: False for a step that is left out: then the queue stays as it is.
        """
        if is_taken and self._added:
            added = _gather_over_ranks(torch.cat(self._added))
            self.queue.copy_(torch.cat([added, self.queue])[: len(self.queue)])
        self._added.clear()


def koleo_loss(embeddings: torch.Tensor) -> torch.Tensor:
    """Computes the KoLeo regularizer, which drives the embeddings of a batch apart.

    - Spreading vectors for similarity search, https://arxiv.org/abs/1806.03198, equation 4;
      `dinov2/loss/koleo_loss.py` of DINOv2

    Args:
        embeddings: Of different samples, of shape [B, E] with B of at least 2.

    Returns:
        The mean of the negative logarithm of the distance to the nearest other embedding, all on
        the unit sphere.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        points = functional.normalize(embeddings.float(), dim=-1, eps=1e-8)
        with torch.no_grad():
            similarities = points @ points.T
            nearest = similarities.fill_diagonal_(-2.0).argmax(dim=1)
        distances = functional.pairwise_distance(points, points[nearest], eps=1e-8)
        return -torch.log(distances + 1e-8).mean()


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    if _world_size() > 1:
        distributed.all_reduce(tensor, op=distributed.ReduceOp.SUM)
    return tensor


def _gather_over_ranks(rows: torch.Tensor) -> torch.Tensor:
    """Returns the rows of all ranks, which have equally many, in the same order on each."""
    if _world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def _max_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    if _world_size() > 1:
        distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
    return tensor


def _rename_center(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Reads the center of checkpoints from before 0.2, where it was spelled `centre`."""
    if f"{prefix}centre" in state_dict:
        state_dict[f"{prefix}center"] = state_dict.pop(f"{prefix}centre")
