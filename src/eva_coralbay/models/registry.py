"""Makes the encoders of the zoo known to eva by name, in our configs and in eva's own."""

import inspect
from collections.abc import Mapping
from typing import Any

from eva.vision.models.networks.backbones.registry import backbone_registry
from torch import nn

from eva_coralbay.models import loading, zoo


def register_backbones() -> list:
    """Puts the zoo into eva's `backbone_registry`; to call it again changes nothing.

    Names that eva has too (VoCo, SuPreM, the Universal Model) become ours: eva builds these
    networks with the patch merging of the installed MONAI, which since 1.5.0 is not the one that
    their weights were trained with.

    Returns:
        An empty list, so that it can serve Lightning as a factory of callbacks.
    """
    for name, entry in zoo.ENTRIES.items():
        known = backbone_registry.entries()
        if name not in known:
            backbone_registry.register(name)(_Backbone(entry))
        elif not isinstance(backbone_registry.get(name), _Backbone):
            # the registry has no public way to replace an item
            backbone_registry._registry[name] = _Backbone(entry)
    return []


class _Backbone:
    """A registry item that refuses the arguments that it does not know.

    eva drops each argument whose name is not in the signature of an item, so a misspelled one would
    have no effect. The signature of this one contains every name; what is unknown is refused when
    the encoder is built.
    """

    def __init__(self, entry: zoo.Entry) -> None:
        self._entry = entry
        self.__signature__ = _OpenSignature()

    def __call__(self, **kwargs: Any) -> nn.Module:
        return loading.build(self._entry, **_fit(self._entry, kwargs))


def _fit(entry: zoo.Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a config as far as they are about the network of an entry.

    Configs state for every encoder what a SwinUNETR needs: its feature size (IN_FEATURES) and six
    feature maps (OUT_INDICES). Other networks have a width of their own, and at most their maps.
    """
    fitting = dict(options)
    if entry.keys is None:
        return fitting
    fitting.pop("feature_size", None)
    if fitting.get("out_indices") is not None:
        fitting["out_indices"] = min(fitting["out_indices"], len(entry.maps))
    return fitting


class _OpenSignature(inspect.Signature):
    """A signature among whose parameters every name is found."""

    @property
    def parameters(self) -> "_EveryName":
        return _EveryName()


class _EveryName(dict[str, inspect.Parameter]):
    """No parameters, which claim to contain every name."""

    def __contains__(self, key: object) -> bool:
        return True
