"""What is known of a task: the facts that all other rooms read, each of which stands once."""

import dataclasses
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from typing_extensions import override

Kind = Literal["segmentation", "classification"]
"""What is predicted: a label for each voxel, or one for each volume."""

Unit = Literal["patient", "case"]
"""What counts once in the scores of a classification: a patient, or each case by itself."""

BACKGROUND = "background"
"""The name of label value 0 of a segmentation."""

SOFT_TISSUE_HU = (-175.0, 250.0)
"""Fat to organs with contrast: the window of eva's 3D tasks (`btcv.yaml` of kaiko-eva 0.4.5), which
is that of MONAI's tutorial on BTCV."""

SPACING_MM = (1.5, 1.5, 1.5)
"""The voxel spacing of eva's 3D tasks, in mm, as (D, H, W)."""

NSD_TOLERANCE_MM = 2.0
"""The tolerance of the normalized surface Dice where nothing else is stated, in mm."""

_HEADLINE_METRICS: Mapping[Kind, str] = {
    "segmentation": "dice",
    "classification": "balanced_accuracy",
}


def headline_metric(kind: Kind) -> str:
    """Returns the metric that ranks the models on a task.

    Args:
        kind: The kind of the task.
    """
    return _HEADLINE_METRICS[kind]


class License(NamedTuple):
    """The terms that data may be used by."""

    name: str
    """The SPDX identifier, or the name of terms that have none."""

    url: str
    """Where the terms are."""

    @property
    def restrictions(self) -> list[str]:
        """What the name forbids: "non-commercial", "no derivatives"."""
        terms = {"NC": "non-commercial", "ND": "no derivatives"}
        parts = self.name.upper().replace("-", " ").split()
        return [meaning for term, meaning in terms.items() if term in parts]

    @override
    def __str__(self) -> str:
        """Returns the terms in one line, with what they forbid."""
        restrictions = f"; {', '.join(self.restrictions)}" if self.restrictions else ""
        return f"{self.name} ({self.url}{restrictions})"


class Resource(NamedTuple):
    """A file to download."""

    url: str
    """Where it is."""

    filename: str
    """What it is called below the root."""

    checksum: str | None = None
    """Its digest as "md5:..." or "sha256:...", None where none is published."""


CROP: Final = (96, 96, 96)
"""The size of the encoder's input in voxels, as (D, H, W), unless the task has another."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the decoder of a segmentation is trained and how its windows are laid."""

    batch_size: int = 2
    """The number of scans in a step."""

    num_samples: int = 4
    """The number of crops of a scan in a step."""

    lr: float = 1e-3
    """The learning rate at the start."""

    class_weights: tuple[float, ...] | None = None
    """The weight of each label in the loss, the background first; None for equal ones."""

    overlap: float | None = None
    """The overlap of windows when scoring, as a share of the window; None for the protocol's."""

    monitor_overlap: float | None = None
    """The same for the validation during the training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the leaderboard: a public data set and how it is trained and scored."""

    id: str
    """The name of the task in configs, records and files."""

    version: str = "2"
    """Its version: values of two versions are never compared."""

    title: str
    """The name of the data set, as its authors write it."""

    kind: Kind
    """What is to be predicted."""

    labels: tuple[str, ...]
    """The name of each label value in order; "background" first in a segmentation."""

    dataset: str
    """The path of the data set's class, as a config names it."""

    published_cases: int
    """The number of labeled cases that the authors state."""

    license: License
    """The terms of the data."""

    homepage: str
    """Where the data set is described."""

    access: str = "download"
    """In a few words how to get the data: "download" if no account is needed."""

    how_to_get: str
    """What to do to get the files, and what must lie where below the root then."""

    resources: tuple[Resource, ...] = ()
    """The files that can be downloaded without an account."""

    steps: int
    """The number of training steps."""

    val_interval: int
    """The number of training steps between two validations."""

    training: Training = Training()
    """How the decoder of a segmentation is trained."""

    crop: tuple[int, int, int] = CROP
    """The size of the encoder's input in voxels, as (D, H, W)."""

    crop_mm: tuple[float, float, float] | None = None
    """The size of the encoder's input in mm, as (D, H, W); None if it follows from the spacing, or
    a whole volume is resized."""

    spacing: tuple[float, float, float] | None = None
    """The voxel spacing that a scan is resampled to, in mm, as (D, H, W); None if it is not."""

    hu_window: tuple[float, float] | None = None
    """The lowest and the highest HU, which become 0 and 1; None if the data are not in HU."""

    nsd_tolerance: float | Mapping[str, float] = NSD_TOLERANCE_MM
    """How far two surfaces may be apart to count as equal in the normalized surface Dice, in mm:
    one value for all classes, or one for each class."""

    unit: Unit = "patient"
    """What counts once in the scores of a classification. A patient's cases are averaged, and must
    be of one class; cases that count by themselves may be of several."""

    lesion_classes: tuple[str, ...] = ()
    """The classes whose connected components are lesions, which are counted one by one."""

    shares_scans_with: tuple[str, ...] = ()
    """The ids of the tasks that are scored on some of the same scans, or may be."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that are scored: the labels without the background."""
        return self.labels[1:] if self.kind == "segmentation" else self.labels

    @property
    def headline_metric(self) -> str:
        """The metric that ranks the models."""
        return headline_metric(self.kind)

    def tolerance_of(self, class_name: str) -> float:
        """Returns the tolerance of the normalized surface Dice, in mm.

        Args:
            class_name: The name of the class.
        """
        if isinstance(self.nsd_tolerance, Mapping):
            return self.nsd_tolerance[class_name]
        return self.nsd_tolerance
