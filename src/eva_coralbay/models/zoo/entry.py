"""What an entry of the zoo says of an encoder."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from eva_coralbay.models import weight_sources
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.tasks import catalog

EVERY_TASK = tuple(catalog.TASKS)
"""The ids of all our tasks."""


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """One of the feature maps of an encoder."""

    channels: int
    """Channels of the map."""

    stride: tuple[int, int, int]
    """Voxels of the input for one of the map, along its three axes."""

    @classmethod
    def of_stride(cls, channels: int, stride: int) -> "FeatureMap":
        """Describes a map with the same stride along all axes."""
        return cls(channels, (stride, stride, stride))


@dataclasses.dataclass(frozen=True)
class KeyLayout:
    """Under which names a weights file has the encoder."""

    nest: tuple[str, ...] = ()
    """Names of the nested dictionaries that lead to the state dict."""

    prefix: str = ""
    """What each name of the encoder's weights begins with."""

    beside: str = "(?!)"
    """Pattern of how names of other parts begin that the file has, too, such as a decoder."""


@dataclasses.dataclass(frozen=True)
class Scans:
    """A data set that an encoder was pre-trained on."""

    name: str
    """Its name."""

    number: int | None
    """The number of scans; None where it is not published."""

    use: Literal["unlabeled", "labeled", "unknown"]
    """Whether their labels were used."""

    source: str
    """Where this is said."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What is known of the overlap of a pre-training with the data of some of our tasks."""

    kind: Literal["none", "unlabeled-train", "labeled-train", "test", "unknown"]
    """The strongest overlap that is certain; see `eva_coralbay.leaderboard.cards`."""

    tasks: tuple[str, ...]
    """The ids of the tasks."""

    note: str
    """What is known beyond the kind."""

    source: str | None = None
    """Where it is said; None if nothing is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An encoder that is known by name."""

    name: str
    """Its name, also in eva's registry."""

    title: str
    """What a reader calls it."""

    network: str
    """Path of the class of the network, `package.module.Class`."""

    arguments: Mapping[str, Any]
    """Arguments of that class, which decide what the weights compute."""

    weights: str | None
    """Where the weights are: a Hub id `org/name@revision[#file]`; None for random ones."""

    more_weights: tuple[str, ...] = ()
    """Where the rest of them is if they are several files, each of a part of the network, in the
    order of its parts."""

    keys: KeyLayout | None = None
    """The layout of the weights file; None for networks that know how to load theirs."""

    sha256: str | None = None
    """SHA-256 of the weights file, where it is published."""

    md5: str | None = None
    """MD5 of the weights file, where nothing better is published."""

    preprocessing: Preprocessing | None
    """The input that it was trained on. None where that is not published, or was not CT: then it is
    given that of the task."""

    parameters: int | None
    """Number of parameters; None where it depends on the weights."""

    embedding_dim: int | None
    """Width of the embedding; None where it depends on the weights."""

    maps: tuple[FeatureMap, ...]
    """The feature maps, from fine to coarse; empty where they depend on the weights."""

    license: str | None
    """License of the weights; None where it is not known."""

    pretraining: str | None
    """What it was pre-trained on, in a few words; None where it is not known."""

    scans: tuple[Scans, ...] | None
    """The data sets of that; empty for random weights, None where they are not known."""

    overlaps: tuple[Overlap, ...]
    """Which of our tasks that overlaps with. A task that is not there was not looked up."""

    sources: Mapping[str, str]
    """Where each of these facts stands: a paper, or a file of a repository at a commit."""

    notes: tuple[str, ...] = ()
    """What a reader of its card should know."""

    @property
    def files(self) -> tuple[str, ...]:
        """Where all files of the weights are; empty for random ones."""
        return () if self.weights is None else (self.weights, *self.more_weights)

    @property
    def is_downloaded(self) -> bool:
        """Whether all files of the weights lie on this machine."""
        return all(map(weight_sources.is_downloaded, self.files))

    @property
    def unpinned(self) -> str | None:
        """What is not known of the weights file, so that it may change; None if it is pinned.

        A hash pins it, and so does the commit of a Hub repository.
        """
        if self.weights is None or self.sha256 is not None or self.md5 is not None:
            return None
        if weight_sources.is_url(self.weights):
            return "hash unknown: the file is loaded as it was when it was downloaded"
        hub_id = weight_sources.parse_hub_id(self.weights)
        if hub_id is not None and hub_id.revision is not None:
            return None
        return "hash unknown: the newest file of its repository is loaded"

    @property
    def pretraining_tasks(self) -> tuple[str, ...] | None:
        """Those of our tasks whose scans are known to be in the pre-training, in any way.

        Empty if none is; None where none is known and not all are ruled out.
        """
        within = [o for o in self.overlaps if o.kind not in ("none", "unknown")]
        ruled_out = {task for o in self.overlaps if o.kind == "none" for task in o.tasks}
        if not within and self.scans != () and ruled_out < set(EVERY_TASK):
            return None
        return tuple(sorted(task for overlap in within for task in overlap.tasks))

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return {
            "name": self.name,
            "title": self.title,
            "network": self.network,
            "arguments": {
                k: list(v) if isinstance(v, tuple) else v for k, v in self.arguments.items()
            },
            "weights": self.weights,
            "more_weights": list(self.more_weights),
            "sha256": self.sha256,
            "md5": self.md5,
            "unpinned": self.unpinned,
            "preprocessing": self.preprocessing and self.preprocessing.as_dict(),
            "parameters": self.parameters,
            "embedding_dim": self.embedding_dim,
            "maps": [{"channels": m.channels, "stride": list(m.stride)} for m in self.maps],
            "license": self.license,
            "pretraining": self.pretraining,
            "scans": self.scans and [dataclasses.asdict(scans) for scans in self.scans],
            "overlaps": [{**dataclasses.asdict(o), "tasks": list(o.tasks)} for o in self.overlaps],
            "pretraining_tasks": self.pretraining_tasks and list(self.pretraining_tasks),
            "notes": list(self.notes),
            "sources": dict(self.sources),
        }
