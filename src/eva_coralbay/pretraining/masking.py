"""A masked term: the student tells, where voxels are hidden, what the teacher sees there."""

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.pretraining import heads, loss

MAP = 4
"""The feature map whose tokens are told: that at 1/16, which the embedding leaves out."""

_P_MASKED = 0.5
"""How probable it is that a view is masked."""

_CENTER_MOMENTUM = 0.9
"""How much of the center of the tokens' logits stays at each step."""


@dataclasses.dataclass(frozen=True)
class Masking:
    """How much is hidden of the student's global views, and how much telling it counts.

    As in iBOT, the student's global views are masked, the teacher's are not, and the loss of the
    hidden tokens is DINO's with a head of its own; a view is masked with a chance of one half. As
    in SMIT, the tokens are those of a stage of a Swin encoder. As this encoder has no token for
    what is hidden, hidden voxels take the mean of their view. Untested: no training here has
    shown what it adds.

    - Image BERT Pre-Training with Online Tokenizer, https://arxiv.org/abs/2111.07832, section 3.2
      and appendix B
    - Self-supervised 3D anatomy segmentation using self-distilled masked image transformer,
      https://arxiv.org/abs/2205.10342, section 2
    """

    weight: float = 1.0
    """The weight of the term."""

    ratio: tuple[float, float] = (0.1, 0.5)
    """The range of the part of a masked view that is hidden."""

    num_prototypes: int = 1024
    """The number of prototypes of the tokens."""

    def __post_init__(self) -> None:
        """Checks the range.

        Raises:
            EvaCoralbayError: If the ratio is not a range within 0 to 1, or the weight is not
                above 0.
        """
        least, most = self.ratio
        if not (0.0 < least <= most < 1.0 and self.weight > 0.0):
            raise EvaCoralbayError(
                "`masking` takes a `weight` above 0 and a `ratio` (least, most) between 0 and 1; "
                f"got {self.weight} and ({least}, {most})."
            )


class TokenHead(heads.Head):
    """Maps the tokens of a map to their similarities to the prototypes of tokens."""

    def __init__(
        self, encoder: encoder_lib.CoralBayEncoder, masking: Masking, dims: tuple[int, int, int]
    ) -> None:
        """Initializes the head.

        Args:
            encoder: The encoder that the map is of.
            masking: How many prototypes there are.
            dims: The widths of the two hidden layers and of the bottleneck.
        """
        super().__init__(
            encoder.feature_channels[MAP],
            masking.num_prototypes,
            hidden_dims=dims[:2],
            bottleneck_dim=dims[2],
        )


def draw_masks(masking: Masking, *, views: int, size: int) -> torch.Tensor:
    """Draws the masks of views with PyTorch's CPU generator.

    Args:
        masking: How much.
        views: The number of views, N.
        size: The edge of a view in voxels.

    Returns:
        Whether a token is hidden, of shape [N, d, d, d] with the edge d of the map. Something is
        hidden of one view at least.
    """
    edge = token_edge(size)
    ratios = torch.empty(views, 1).uniform_(*masking.ratio)
    is_masked = torch.rand(views, 1) < _P_MASKED
    is_masked[0] |= not is_masked.any()
    counts = (ratios * is_masked * edge**3).ceil()
    ranks = torch.rand(views, edge**3).argsort(dim=1).argsort(dim=1)
    return (ranks < counts).view(views, edge, edge, edge)


def token_edge(size: int) -> int:
    """Returns the edge of the map of a view, which each stage halves and rounds up."""
    for _ in range(MAP):
        size = -(-size // 2)
    return size


def hide(views: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Hides the voxels of tokens behind the mean of their view.

    Args:
        views: Of shape [N, 1, G, G, G].
        masks: What `draw_masks` returns.
    """
    step, size = 2**MAP, views.shape[-1]
    hidden = masks[:, None]
    for dim in (2, 3, 4):
        hidden = hidden.repeat_interleave(step, dim=dim).narrow(dim, 0, size)
    return torch.where(hidden, views.mean(dim=(1, 2, 3, 4), keepdim=True), views)


class MaskedTerm(nn.Module):
    """The loss of the hidden tokens, with the center of their logits."""

    def __init__(self, masking: Masking) -> None:
        """Initializes the center with zeros."""
        super().__init__()
        self.masking = masking
        self.targets = loss.Centering(masking.num_prototypes, momentum=_CENTER_MOMENTUM)

    def forward(
        self,
        teacher_logits: torch.Tensor,
        student_logits: torch.Tensor,
        *,
        teacher_temperature: float,
        student_temperature: float,
    ) -> torch.Tensor:
        """Computes the mean cross-entropy over hidden tokens.

        Args:
            teacher_logits: Of shape [M, K].
            student_logits: Of the same tokens, of shape [M, K].
            teacher_temperature: The temperature of the teacher.
            student_temperature: The temperature of the student.

        Returns:
            The loss, a scalar.
        """
        probs = self.targets(teacher_logits[None], temperature=teacher_temperature)[0]
        log_probs = functional.log_softmax(student_logits.float() / student_temperature, dim=-1)
        return -(probs * log_probs).sum(dim=-1).mean()


def hidden_tokens(feature_map: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Returns the tokens of a map [N, C, d, d, d] that masks [N, d, d, d] hide, as [M, C]."""
    return feature_map.movedim(1, -1)[masks]
