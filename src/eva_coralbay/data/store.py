"""Prepared scans on disk: written once, read crop by crop."""

from typing import Callable, NamedTuple, Sequence, Tuple

from eva.vision.data import tv_tensors as eva_tv_tensors
from torchvision import tv_tensors

from eva_coralbay.data import prepared
from eva_coralbay.data.errors import DatasetError


class StoreError(DatasetError):
    """A prepared scan is missing or damaged."""


class Source(NamedTuple):
    """What a scan is prepared from."""

    case: str
    """The id of the case."""

    files: Tuple[str, ...]
    """The files it is made of: when one changes, it is prepared anew."""

    load: Callable[[], Tuple[eva_tv_tensors.Volume, tv_tensors.Mask | None]]
    """Loads the scan in HU and its label map, each of shape [1, D, H, W]; can be pickled."""


class PreparedStore:
    """A folder of prepared scans."""

    def __init__(
        self,
        root: str,
        *,
        name: str,
        preparation: prepared.Preparation,
        labels: Sequence[str] = (),
    ) -> None:
        """Initializes the store."""

    def prepare(self, sources: Sequence[Source], *, workers: int | None = None) -> None:
        """Prepares the scans that are not there yet."""
        raise NotImplementedError

    def open(self, source: Source) -> prepared.PreparedScan:
        """Opens a prepared scan."""
        raise NotImplementedError
