"""Makes the encoder known to eva by name, in our configs and in eva's own."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from eva.vision.models.networks.backbones.registry import backbone_registry
from torch import nn

from eva_coralbay.models import checkpoints, encoder, hub

PUBLISHED = "kaiko-ai/coralbay"
"""Hub id of the published weights."""


def register_backbones() -> list:
    """Adds our names to eva's `backbone_registry`; again is no error.

    Returns:
        An empty list, so that it can serve Lightning as a factory of callbacks.
    """
    for name, build in _BACKBONES.items():
        if name not in backbone_registry.entries():
            backbone_registry.register(name)(_Backbone(name, build))
    return []


class _Backbone:
    """A registry item that refuses the arguments that it does not know.

    eva drops each argument whose name is not in the signature of an item, so a misspelt one would
    have no effect. The signature of this one contains every name; what is unknown arrives here.
    """

    def __init__(self, name: str, build: Callable[..., nn.Module]) -> None:
        self._name = name
        self._build = build
        self._known = inspect.signature(build).parameters
        self.__signature__ = _OpenSignature(list(self._known.values()))

    def __call__(self, **kwargs: Any) -> nn.Module:
        unknown = [name for name in kwargs if name not in self._known]
        if unknown:
            raise TypeError(
                f"{self._name} does not take {', '.join(unknown)}; it takes "
                f"{', '.join(self._known)}."
            )
        return self._build(**kwargs)


class _OpenSignature(inspect.Signature):
    """A signature among whose parameters every name is found."""

    @property
    def parameters(self) -> "_EveryName":
        return _EveryName(super().parameters)


class _EveryName(dict[str, inspect.Parameter]):
    """The parameters of a signature, which claim to contain every name."""

    def __contains__(self, key: object) -> bool:
        return True


def _coralbay(
    *,
    out_indices: int | None = None,
    embeddings_type: Literal["multiscale", "head"] | None = None,
    checkpoint: str | None = None,
    sha256: str | None = None,
    feature_size: int | None = None,
    in_channels: int | None = None,
    patch_merging: Literal["octants", "legacy"] | None = None,
    activation_checkpointing: bool = False,
) -> nn.Module:
    """Builds the encoder with trained weights, by default the published ones.

    The feature size is that of the weights; configs give it too, for the decoder, and the two
    must agree.
    """
    weights = checkpoints.read(checkpoint or PUBLISHED, sha256=sha256)
    if feature_size not in (None, weights.feature_size):
        raise ValueError(
            f"{weights.source}: weights have feature_size {weights.feature_size}, the config "
            f"{feature_size}; set IN_FEATURES={weights.feature_size}."
        )
    given = {
        "embeddings_type": embeddings_type,
        "in_channels": in_channels,
        "patch_merging": patch_merging,
    }
    return hub.from_checkpoint(
        weights,
        out_indices=out_indices,
        activation_checkpointing=activation_checkpointing,
        **{name: value for name, value in given.items() if value is not None},
    )


def _coralbay_random(
    *,
    out_indices: int | None = None,
    embeddings_type: Literal["multiscale", "head"] = "multiscale",
    checkpoint: None = None,
    feature_size: int = 48,
    in_channels: int = 1,
    patch_merging: Literal["octants", "legacy"] = "octants",
    use_v2: bool = True,
    drop_path_rate: float = 0.0,
    activation_checkpointing: bool = False,
) -> nn.Module:
    """Builds the encoder with random weights, the baseline of every pre-training."""
    if checkpoint is not None:
        raise ValueError(
            f"radiology/coralbay_random has random weights and does not load {checkpoint!r}; use "
            "radiology/coralbay for a checkpoint."
        )
    return encoder.CoralBayEncoder(
        feature_size=feature_size,
        in_channels=in_channels,
        out_indices=out_indices,
        embeddings_type=embeddings_type,
        patch_merging=patch_merging,
        drop_path_rate=drop_path_rate,
        use_v2=use_v2,
        activation_checkpointing=activation_checkpointing,
    )


_BACKBONES = {
    "radiology/coralbay": _coralbay,
    "radiology/coralbay_random": _coralbay_random,
}
"""Our names and how each is built."""
