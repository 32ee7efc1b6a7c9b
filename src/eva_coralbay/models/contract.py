"""Proves, in a minute on a CPU, that a backbone keeps the contract that evaluations rely on.

The contract: a callable on float volumes [B, C, D, H, W] in [0, 1] that returns one embedding
[B, E] (`out_indices=None`) or the last n feature maps from fine to coarse (`out_indices=n`), for
any input size, in evaluation the same each time and for each volume of a batch by itself.
"""

import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from eva.core.utils import factory
from eva.vision.models.networks.backbones import backbone_registry
from monai.networks.nets import swin_unetr
from torch import nn

from eva_coralbay import _messages, _tensor_meter
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import description, registry, zoo
from eva_coralbay.models.networks import pyramid
from eva_coralbay.models.zoo.swin_unetr import FACTORS, STRIDES

_NUM_MAPS = 6
"""Feature maps that are asked for if the zoo says no number; the SwinUNETR decoder takes six."""

_TRAINED_BEFORE_MONAI_1_5 = {
    "VoCoB": "radiology/voco_b",
    "VoCoL": "radiology/voco_l",
    "VoCoH": "radiology/voco_h",
    "SuPreMSwinUNETR": "radiology/suprem_swin_unetr",
    "UniversalModelSwinUNETR": "radiology/universal_swinunetr",
}
"""eva's classes of weights from before MONAI changed `PatchMerging`, and our names for them."""

SMALL_SIZE = 64
"""Edge in voxels of the inputs where the size does not matter."""

_BATCH_TOLERANCE = 1e-3
"""Largest difference, relative to the largest value, between a batch and its volumes alone."""

_BFLOAT16_TOLERANCE = 0.1
"""Largest relative L2 difference between bfloat16 autocast and float32."""

_ANY_MAPS_DECODER = "eva_coralbay.evaluation.pyramid_decoder.PyramidDecoder"
"""The decoder for all other maps."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One point of the contract and what was seen of it."""

    check: str
    """What was looked at."""

    holds: bool | None
    """Whether it is as it must be; None where nothing is required."""

    seen: str
    """Shapes, numbers or the error."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What holds for a backbone."""

    backbone: str
    """Name or class path."""

    findings: list[Finding]
    """A finding a point of the contract."""

    seconds: float
    """How long the checks took."""

    peak_gib: float
    """The most memory of all tensors at a time, weights and gradients included, in GiB."""

    encoder: dict[str, Any] | None
    """What `description.describe_encoder` says of it; None if it could not be built."""

    @property
    def holds(self) -> bool:
        """Whether the backbone keeps the contract."""
        return all(finding.holds is not False for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {**dataclasses.asdict(self), "holds": self.holds}


class _Broken(Exception):
    """A point of the contract that does not hold; the message is what was seen."""


def check(
    backbone: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    random_weights: bool = False,
    roi: int = 96,
    in_channels: int = 1,
) -> Report:
    """Builds a backbone and checks each point of the contract.

    Args:
        backbone: A name in eva's registry or the path `package.module.Class` of a class.
        kwargs: Arguments to build it with; `out_indices` is for the feature maps only.
        random_weights: Whether an encoder of the zoo is checked without a download of its weights.
        roi: Edge in voxels of the largest input.
        in_channels: Channels of the input.

    Returns:
        What holds. A check that raises does not hold; if the backbone cannot be built, that is
        the only finding.
    """
    start, meter = time.monotonic(), _tensor_meter.TensorMeter("cpu")
    kwargs = dict(kwargs or {})
    if random_weights:
        kwargs["random_weights"] = True
    given = kwargs.pop("out_indices", None)
    stated = zoo.ENTRIES[backbone].maps if backbone in zoo.ENTRIES else ()
    num_maps = (len(stated) or _NUM_MAPS) if given is None else given
    encoder = None
    with torch.random.fork_rng(devices=[]), meter:
        torch.manual_seed(0)
        try:
            embedder = _build(backbone, kwargs).eval()
        except Exception as error:
            findings = [Finding("builds", False, _describe(error))]
        else:
            encoder = description.describe_encoder(embedder)
            build_mapper = functools.partial(_build, backbone, {**kwargs, "out_indices": num_maps})
            findings = _run(embedder, build_mapper, roi, in_channels, num_maps, stated)
    seconds = round(time.monotonic() - start, 1)
    return Report(backbone, findings, seconds, round(meter.peak / 2**30, 2), encoder)


def _run(
    embedder: nn.Module,
    build_mapper: Callable[[], nn.Module],
    roi: int,
    in_channels: int,
    num_maps: int,
    stated: Sequence[zoo.FeatureMap],
) -> list[Finding]:
    parameters = sum(parameter.numel() for parameter in embedder.parameters())
    findings = [Finding("builds", True, f"{parameters:,} parameters")]
    findings += _check_patch_merging(embedder)

    small = min(SMALL_SIZE, roi)
    volume = functools.partial(_volume, in_channels)
    embedding_checks: dict[str, Callable[[], str]] = {
        "embedding [B, E]": lambda: _check_embedding(embedder, volume(roi)),
        "other sizes": lambda: _check_sizes(embedder, [volume(small), volume(small, small, 96)]),
        "same again in eval": lambda: _check_repeatable(embedder, volume(small)),
        "batch of 2 = 2 alone": lambda: _check_batch(embedder, volume(small)),
        "air gives finite values": lambda: _check_embedding(embedder, 0 * volume(small)),
        "bfloat16 autocast": lambda: _check_bfloat16(embedder, volume(small)),
        "frozen: no gradient": lambda: _check_frozen(embedder, volume(small)),
    }
    findings += [_find(name, run) for name, run in embedding_checks.items()]

    try:
        mapper = build_mapper().eval()
        maps = _maps(mapper, volume(roi))
    except Exception as error:
        return [*findings, Finding("feature maps", False, _describe(error))]
    map_checks: dict[str, Callable[[], str]] = {
        "feature maps": lambda: _check_maps(maps, num_maps, stated, roi),
        "trainable: gradient": lambda: _check_gradient(mapper, volume(small)),
    }
    findings += [_find(name, run) for name, run in map_checks.items()]
    return [*findings, Finding("decoder", None, _describe_decoder(mapper, maps, roi))]


def _find(name: str, run: Callable[[], str]) -> Finding:
    """Turns the outcome of a check, an error included, into a finding."""
    try:
        return Finding(name, True, run())
    except Exception as error:
        return Finding(name, False, _describe(error))


def _describe(error: Exception) -> str:
    text = str(error).strip()
    return text if isinstance(error, _Broken) else f"{type(error).__name__}: {text}"


# -- the backbone and its inputs --------------------------------------------------------------


def _build(backbone: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Builds a backbone as eva would, by its name, or by its class path."""
    registry.register_backbones()
    if backbone in backbone_registry.entries():
        return factory.ModuleFactory(backbone_registry, backbone, dict(kwargs))
    module_name, _, class_name = backbone.rpartition(".")
    if not module_name or "/" in backbone:
        known = backbone_registry.entries()
        close = difflib.get_close_matches(backbone.lower(), known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        raise EvaCoralbayError(
            f"'{backbone}' is neither a name in eva's registry nor a path 'package.module.Class'. "
            f"{hint}`eva-coralbay models` lists the encoders of this package."
        )
    network: Callable[..., nn.Module] = getattr(importlib.import_module(module_name), class_name)
    if not callable(network):
        raise _Broken(f"'{backbone}' is a {type(network).__name__}, not a class")
    return network(**kwargs)


def _volume(in_channels: int, *size: int) -> torch.Tensor:
    """A smooth volume [1, C, D, H, W] in [0, 1], the same for the same size."""
    size = size * 3 if len(size) == 1 else size
    coarse = torch.rand(
        (1, in_channels, *(-(-edge // 8) for edge in size)),
        generator=torch.Generator().manual_seed(0),
    )
    return nn.functional.interpolate(coarse, size=size, mode="trilinear")


def _embed(model: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = model(tensor)
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(tensor):
        raise _Broken(f"{_shapes(output)} instead of [{len(tensor)}, E] for {_shapes(tensor)}")
    if not torch.isfinite(output).all():
        raise _Broken(f"NaN or infinite values for {_shapes(tensor)}")
    return output


def _maps(model: nn.Module, tensor: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        output = model(tensor)
    is_list = isinstance(output, (list, tuple))
    if not is_list or not all(isinstance(item, torch.Tensor) for item in output):
        raise _Broken(f"{_shapes(output)} instead of a list of maps for {_shapes(tensor)}")
    return list(output)


def _shapes(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return str(list(value.shape))
    if isinstance(value, (list, tuple)):
        return ", ".join(_shapes(item) for item in value)
    return type(value).__name__


# -- the points of the contract ---------------------------------------------------------------


def _check_patch_merging(network: nn.Module) -> list[Finding]:
    """Says how a Swin network merges patches, and names MONAI's layer, which changed in 1.5.0."""
    network = getattr(network, "model", network)
    own = getattr(network, "patch_merging", None)
    changed = swin_unetr.PatchMerging.forward
    layers = [n for n, layer in network.named_modules() if type(layer).forward is changed]
    if not layers:
        return [] if own is None else [Finding("patch merging", None, f"'{own}'")]
    seen = (
        f"PatchMerging of MONAI {importlib.metadata.version('monai')} "
        f"({_messages.list_names(layers, limit=1)}): from weights that were trained before MONAI "
        "1.5.0 it computes other features"
    )
    name = _find_trained_before(network)
    if name is None:
        return [Finding("patch merging", None, f"{seen}. Check what yours were trained with")]
    return [Finding("patch merging", False, f"{seen}, as these were. Use the name {name}")]


def _find_trained_before(network: nn.Module) -> str | None:
    """Returns our name of weights from before MONAI 1.5 of which the network has eva's class."""
    kinds = (kind for layer in network.modules() for kind in type(layer).__mro__)
    names = (
        _TRAINED_BEFORE_MONAI_1_5.get(kind.__name__)
        for kind in kinds
        if kind.__module__.startswith("eva.")
    )
    return next(filter(None, names), None)


def _check_embedding(model: nn.Module, tensor: torch.Tensor) -> str:
    embedding = _embed(model, tensor)
    if embedding.dtype != torch.float32:
        raise _Broken(f"{embedding.dtype} for a float32 input")
    return f"{_shapes(tensor)} -> {_shapes(embedding)} {str(embedding.dtype).split('.')[1]}"


def _check_sizes(model: nn.Module, tensors: list[torch.Tensor]) -> str:
    embeddings = [_embed(model, tensor) for tensor in tensors]
    seen = "; ".join(
        f"{_shapes(t)} -> {_shapes(e)}" for t, e in zip(tensors, embeddings, strict=True)
    )
    if len({embedding.shape for embedding in embeddings}) > 1:
        raise _Broken(f"another width for another size: {seen}")
    return seen


def _check_repeatable(model: nn.Module, tensor: torch.Tensor) -> str:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    first, second = _embed(model, tensor), _embed(model, tensor)
    if not torch.equal(first, second):
        raise _Broken(f"two calls differ by up to {(first - second).abs().max():.2g}")
    changed = [n for n, b in model.named_buffers() if n in before and not torch.equal(before[n], b)]
    if changed:
        raise _Broken(f"a call in eval changes the buffers {', '.join(changed)}")
    return "two calls are equal to the bit, no buffer changes"


def _check_batch(model: nn.Module, tensor: torch.Tensor) -> str:
    volumes = [tensor, 0.2 * tensor]
    together = _embed(model, torch.cat(volumes))
    alone = torch.cat([_embed(model, volume) for volume in volumes])
    difference = ((together - alone).abs().max() / alone.abs().max()).item()
    if difference > _BATCH_TOLERANCE:
        raise _Broken(f"a volume's embedding depends on its batch: relative {difference:.2g}")
    return f"relative difference {difference:.1g}"


def _check_bfloat16(model: nn.Module, tensor: torch.Tensor) -> str:
    reference = _embed(model, tensor)
    with torch.autocast("cpu", torch.bfloat16):
        embedding = _embed(model, tensor)
    difference = ((embedding.float() - reference).norm() / reference.norm()).item()
    if difference > _BFLOAT16_TOLERANCE:
        raise _Broken(f"relative L2 difference {difference:.2g} to float32")
    return f"relative L2 difference {difference:.1g} to float32"


def _check_frozen(model: nn.Module, tensor: torch.Tensor) -> str:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if model(tensor).requires_grad:
        raise _Broken("the output asks for a gradient with every parameter frozen")
    return "the output asks for none"


def _check_maps(
    maps: list[torch.Tensor], num_maps: int, stated: Sequence[zoo.FeatureMap], roi: int
) -> str:
    seen = _shapes(maps)
    if len(maps) != num_maps:
        raise _Broken(f"{len(maps)} maps for out_indices={num_maps}: {seen}")
    if any(feature_map.ndim != 5 for feature_map in maps):
        raise _Broken(f"maps that are not [B, C, D, H, W]: {seen}")
    if any(not torch.isfinite(feature_map).all() for feature_map in maps):
        raise _Broken("NaN or infinite values")
    edges = [feature_map.shape[-1] for feature_map in maps]
    if edges != sorted(edges, reverse=True):
        raise _Broken(f"not from fine to coarse: {seen}")
    expected = stated[-num_maps:]
    for found, one in zip(maps, expected, strict=False):
        if found.shape[1] != one.channels or not _is_of_stride(found, one.stride, roi):
            raise _Broken(
                f"{_shapes(found)} where the zoo says {one.channels} channels at a stride of "
                f"{' x '.join(map(str, one.stride))}"
            )
    return seen


def _is_of_stride(feature_map: torch.Tensor, stride: Sequence[int], roi: int) -> bool:
    """Whether a map of a cube has the size that follows from its stride, however it is rounded."""
    return all(
        size in (roi // step, -(-roi // step))
        for size, step in zip(feature_map.shape[2:], stride, strict=True)
    )


def _check_gradient(model: nn.Module, tensor: torch.Tensor) -> str:
    model.requires_grad_(True)
    outputs = model(tensor)
    generator = torch.Generator().manual_seed(0)
    weighted = [(torch.randn(m.shape, generator=generator) * m.float()).sum() for m in outputs]
    torch.stack(weighted).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    reached = {name: grad for name, grad in gradients.items() if grad is not None}
    if any(not torch.isfinite(grad).all() for grad in reached.values()):
        raise _Broken("NaN or infinite gradients")
    if not any(grad.any() for grad in reached.values()):
        raise _Broken("no parameter gets a gradient")
    unreached = [name for name in gradients if name not in reached]
    seen = f"reaches {len(reached)} of {len(gradients)} parameter tensors"
    return f"{seen}; not {_messages.list_names(unreached, limit=3)}" if unreached else seen


def _describe_decoder(network: nn.Module, maps: list[torch.Tensor], roi: int) -> str:
    """Says whether eva's SwinUNETR decoder takes the maps, or what stands before it."""
    channels = [feature_map.shape[1] for feature_map in maps]
    strides = [tuple(roi / side for side in feature_map.shape[2:]) for feature_map in maps]
    wanted = [factor * channels[0] for factor in FACTORS] if channels else []
    if strides == [(stride,) * 3 for stride in STRIDES] and channels == wanted:
        return f"SwinUNETRDecoderWithProjection with feature_size (IN_FEATURES) {channels[0]}"
    seen = ", ".join(
        f"{width} at {' x '.join(f'{step:.3g}' for step in stride)}"
        for width, stride in zip(channels, strides, strict=True)
    )
    is_ours = isinstance(getattr(network, "model", network), pyramid.PyramidEncoder)
    how = "which a config takes by itself" if is_ours else f"decoder.class_path={_ANY_MAPS_DECODER}"
    return (
        f"channels at strides {seen}: PyramidDecoder, the SwinUNETR decoder behind a convolution a "
        f"map, {how}"
    )
