"""Student and teacher: an encoder with a projection head, and how the teacher follows."""

from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.models import loading, swin
from eva_coralbay.pretraining import heads
from eva_coralbay.pretraining import masking as masking_lib

Scales = Literal["multi", "last"]
"""What is distilled: the embedding of all scales, or that of the last stage alone."""

EMBEDDINGS: dict[Scales, encoder_lib.EmbeddingsType] = {"multi": "multiscale", "last": "head"}
"""The embedding of the encoder that is distilled."""

_PROTOTYPES = ((100, 1024), (1000, 4096), (5000, 8192))
"""How many prototypes are enough for fewer than so many scans."""

_MAX_PROTOTYPES = 16384
"""How many prototypes there are for more scans than those."""


class Network(nn.Module):
    """An encoder with a projection head: the student, or the teacher."""

    def __init__(
        self,
        encoder: encoder_lib.CoralBayEncoder,
        head: heads.Head,
        token_head: masking_lib.TokenHead | None = None,
    ) -> None:
        """Initializes the network.

        Args:
            encoder: Maps views [B, 1, D, H, W] to embeddings [B, E].
            head: Maps embeddings to logits [B, K].
            token_head: Maps the tokens of a feature map to logits, for the masked term.
        """
        super().__init__()
        self.encoder = encoder
        self.head = head
        if token_head is not None:
            self.token_head = token_head


class Architecture(NamedTuple):
    """What student and teacher are built of."""

    feature_size: int
    """Channels of the encoder's finest map."""

    patch_merging: swin.PatchMergingVariant | None
    """How the encoder merges patches; None for what its weights state, `octants` if random."""

    use_v2: bool | None
    """Whether a convolution block precedes each stage; None likewise, true if random."""

    scales: Scales
    """What is distilled."""

    num_prototypes: int
    """The number of prototypes, K."""

    head_dims: tuple[int, int, int]
    """The widths of the head's two hidden layers and of its bottleneck."""

    masking: masking_lib.Masking | None
    """The masked term, if there is one."""

    drop_path_rate: float
    """The stochastic depth of the student's last block."""

    activation_checkpointing: bool
    """Whether the student recomputes its activations in the backward pass."""

    def build(self, *, trained: bool, init_from: str | None = None) -> Network:
        """Builds the student, which is trained, or the teacher, which is not.

        Args:
            trained: Whether it is the student.
            init_from: The weights that the encoder starts from: a file, a folder, a Hub id or a
                Swin encoder of the zoo by name; random ones if None.

        Raises:
            CheckpointError: If the weights cannot be read, or are those of another architecture.
            EvaCoralbayError: If the name is that of random weights.
        """
        encoder = self._build_encoder(trained=trained, init_from=init_from).train()
        *hidden_dims, bottleneck_dim = self.head_dims
        head = heads.Head(
            encoder.embedding_dim,
            self.num_prototypes,
            hidden_dims=hidden_dims,
            bottleneck_dim=bottleneck_dim,
        )
        token_head = None
        if self.masking is not None:
            token_head = masking_lib.TokenHead(encoder, self.masking, self.head_dims)
        if self.scales == "last":
            for unused in (encoder.encoder1, encoder.encoder2, encoder.encoder3, encoder.encoder4):
                unused.requires_grad_(False)
        network = Network(encoder, head, token_head)
        return network if trained else network.requires_grad_(False)

    def _build_encoder(
        self, *, trained: bool, init_from: str | None
    ) -> encoder_lib.CoralBayEncoder:
        options: dict[str, Any] = {
            "feature_size": self.feature_size,
            "embeddings_type": EMBEDDINGS[self.scales],
            "patch_merging": self.patch_merging,
            "use_v2": self.use_v2,
            "drop_path_rate": self.drop_path_rate if trained else 0.0,
            "activation_checkpointing": self.activation_checkpointing and trained,
        }
        if init_from is None:
            return encoder_lib.CoralBayEncoder(**options)
        encoder = loading.load_swin(init_from, **options)
        if encoder.origin is None:
            raise EvaCoralbayError(
                f"`init_from` (INIT_FROM) is '{init_from}', which has random weights: leave it out."
            )
        return encoder


def suitable_prototypes(num_scans: int, *, balanced: int | None = None) -> int:
    """Returns K for a number of scans.

    Args:
        num_scans: The number of scans.
        balanced: The number of samples that Sinkhorn-Knopp balances at a time, which K does not
            exceed: with fewer samples than prototypes the entropy of the targets is arithmetic.
    """
    number = next((many for limit, many in _PROTOTYPES if num_scans < limit), _MAX_PROTOTYPES)
    return number if balanced is None else min(number, max(balanced, 2))


def group_parameters(network: nn.Module) -> list[dict[str, Any]]:
    """Groups the parameters by whether they decay; `decays` says so."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith("relative_position_bias_table")
            groups[decays].append(parameter)
    return [{"params": members, "decays": decays} for decays, members in groups.items()]


def clip_gradient(
    network: nn.Module, most: float, *, by: Literal["whole", "parameter"]
) -> torch.Tensor:
    """Clips a gradient.

    Args:
        network: The network, of which some parameters may have no gradient.
        most: The largest norm.
        by: What the norm is of: of the gradient as a whole, or of that of each parameter, as
            `clip_gradients` in `utils.py` of DINO does.

    Returns:
        The norm of the gradient as a whole, before it is clipped, a scalar.
    """
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    if by == "whole":
        return nn.utils.clip_grad_norm_(network.parameters(), most)
    norms = torch.stack(torch._foreach_norm(gradients))
    factors = (most / (norms + 1e-6)).clamp_max(1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
    return norms.norm()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Moves the teacher towards the student."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)
