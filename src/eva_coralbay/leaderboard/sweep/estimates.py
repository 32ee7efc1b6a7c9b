"""What a cell of a sweep takes, stated before it runs: memory and hours. It imports no PyTorch.

An estimate is the work on one window, which was counted for every model of the zoo without its
weights (`eva_coralbay.models.work`), times how often the protocol of the task does it: once a crop
of each training step, and once a window of each scan that is scored. The scans are taken to have
the size of a nominal one, as the data need not be here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from eva_coralbay.leaderboard.sweep.plan import Cell
from eva_coralbay.models import work, zoo
from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.tasks import catalog, facts, protocols, splits

SCAN_MM = (300.0, 375.0, 375.0)
"""The size of the nominal scan (D, H, W) in mm: of an abdomen, cropped to the body."""

TFLOPS = 10.0
"""The speed for which hours are stated, in TFLOP/s: a GPU of a data center with 32-bit numbers. An
H200 reached 6 in the windows of a probe and 40 in a pre-training with bfloat16
(benchmarks/RESULTS.md); two cores of a CPU reach about 0.05."""

_PROBE_FACTOR = 1.5
"""How much longer a probe takes than its forward passes: 101 s and 65 s on an H200."""

CURVE_SIZES, CURVE_DRAWS = (1, 2, 5, 10, 25), 10
"""The numbers of training cases of a probe's curve beside all, and how many sets each has."""

NUM_SHRINKAGES = 5
"""How many strengths of a probe's covariance are tried."""

_MATRICES_OF_A_FIT = 5
"""How many matrices of all pairs of features there are at a time beside the sums of the cases."""

_WIDTH = "model.init_args.encoder.init_args.model_kwargs.feature_size"
"""The key of a config that states the feature size."""

_EMBEDDINGS = "data.init_args.embeddings_root"
"""The key of a config that says where the embeddings of a classification are."""

_CLASSIFICATION_DATA = "eva_coralbay.data.ClassificationData"
"""The data of classifications."""

_SCORED_CHECKPOINTS = 2
"""How many checkpoints of a training are scored: the last and the best."""

_BYTES = 4
"""The size of a number."""

_TRAINED_COPIES = 4
"""What there is of weights that are trained: they, their gradients, two moments of AdamW."""

_SEEN = {
    "unlabeled-train": "pre-trained on its train scans",
    "labeled-train": "pre-trained on its train labels",
    "test": "pre-trained on its test scans",
}
"""What is said of the known kinds of overlap."""

_PREDICTED_AT_ONCE = 16
"""How many embeddings are computed at once (PREDICT_BATCH_SIZE)."""


class Estimate(NamedTuple):
    """What a cell takes."""

    tflop: float
    """Its operations, in 10^12."""

    gib: float
    """The most memory of the device, in GiB, with 32-bit numbers."""

    def hours(self, tflops: float = TFLOPS) -> float:
        """The hours it takes.

        Args:
            tflops: The TFLOP/s that the device reaches.
        """
        return self.tflop / tflops / 3600.0


class _Setting(NamedTuple):
    """What a cell does, as far as it decides what it takes."""

    entry: zoo.Entry
    task: facts.Task
    protocol: protocols.Protocol

    values: Mapping[str, Any]
    """The values of its config by their dotted keys."""

    @property
    def size(self) -> Sequence[float]:
        """The size of a window in voxels, as (D, H, W)."""
        own = self._own_input
        if own is not None and own.window is not None and self.protocol.mode == "probe":
            return own.to_scan_order(own.window)
        return self._read_axes("model.init_args.roi_size") or self.task.crop

    @property
    def _own_input(self) -> Preprocessing | None:
        """What the encoder was trained on, if the protocol gives it that."""
        return self.entry.preprocessing if self.protocol.has_native_input else None

    def read_number(self, key: str, otherwise: float) -> float:
        """Returns a value of the config; another one if it is not a number."""
        value = self.values.get(key)
        return float(value) if isinstance(value, (int, float)) else otherwise

    def _read_axes(self, key: str) -> Sequence[float] | None:
        value = self.values.get(key)
        is_given = (
            isinstance(value, list)
            and len(value) == 3
            and all(isinstance(step, (int, float)) and step > 0 for step in value)
        )
        return value if is_given else None

    def count_cases(self, *parts: str) -> int:
        """Returns the cases of some parts of the split that is ranked."""
        known = splits.read_splits(self.task.id)
        lists = known.schemes[known.default]
        return sum(len(lists.get(part, ())) for part in parts)

    def count_windows(self, overlap: float) -> int:
        """Returns the windows of the nominal scan."""
        own = self._own_input
        spacing = self._read_axes("data.init_args.spacing") or self.task.spacing
        if own is not None and own.spacing is not None:
            spacing = own.to_scan_order(own.spacing)
        number = 1
        for mm, step, side in zip(SCAN_MM, spacing or (1.0, 1.0, 1.0), self.size, strict=True):
            voxels = mm / step
            number *= 1 + math.ceil(max(0.0, voxels - side) / (side * (1.0 - overlap)))
        return number

    def find_work(self, kind: work.Kind) -> work.Work:
        return work.find(self.entry.name, kind, self.size)

    def encoder_gib(self) -> float:
        """Returns the size of the encoder's weights, and of what training them needs."""
        copies = _TRAINED_COPIES if self.protocol.trains_encoder else 1
        return copies * _BYTES * (self.entry.parameters or 0) / 2**30


def estimate(cell: Cell) -> Estimate | None:
    """Estimates what a cell takes.

    Args:
        cell: The cell.

    Returns:
        The estimate; None for networks that are not in the zoo or have another width, and for
        tasks that are not in the catalog.
    """
    setting = _read_setting(cell)
    if setting is None:
        return None
    if setting.task.kind == "classification":
        return _estimate_classification(setting)
    if setting.protocol.mode == "probe":
        return _estimate_probe(setting)
    return _estimate_segmentation(setting)


def can_run(cell: Cell) -> bool:
    """Whether a cell can run, as far as its config and the encoder's entry tell.

    Args:
        cell: The cell.
    """
    return _find_obstacle(cell) is None


def _find_obstacle(cell: Cell) -> str | None:
    """Returns why a cell cannot run; None if nothing is known to be in its way."""
    name = str(cell.values.get("trainer.init_args.protocol"))
    rules = protocols.PROTOCOLS.get(name)
    if rules is None:
        return None
    if rules.mode != _find_mode(cell.values):
        return f"its config is not for the protocol {name}"
    if rules.has_native_input and cell.values.get("data.class_path") == _CLASSIFICATION_DATA:
        return f"the protocol {name} is for segmentations"
    entry = zoo.ENTRIES.get(cell.environment["MODEL_NAME"])
    if rules.has_native_input and entry is not None and entry.preprocessing is None:
        return "its own input is not known"
    return None


def _find_mode(values: Mapping[str, Any]) -> str:
    """Returns the mode of the protocols that a config is for."""
    if str(values.get("model.class_path")).endswith("ProbeModule"):
        return "probe"
    return "offline" if _EMBEDDINGS in values else "online"


def list_remarks(cell: Cell) -> Iterator[str]:
    """Yields what to know of a cell before it runs: why it cannot, weights, license, overlap.

    Args:
        cell: The cell.
    """
    obstacle = _find_obstacle(cell)
    if obstacle is not None:
        yield f"cannot run: {obstacle}"
    entry = zoo.ENTRIES.get(cell.environment["MODEL_NAME"])
    if entry is None:
        return
    if entry.weights is not None and not cell.environment.get("CHECKPOINT"):
        if not entry.is_downloaded:
            yield "weights to download"
        known = facts.License(entry.license or "", "").restrictions
        yield from known if entry.license else ["license not known"]
    task = cell.values.get("trainer.init_args.task")
    seen = (_SEEN.get(overlap.kind) for overlap in entry.overlaps if task in overlap.tasks)
    yield from filter(None, seen)


def _estimate_probe(setting: _Setting) -> Estimate:
    """Estimates one forward pass over all scans, and the fit of the classifiers."""
    overlap = setting.read_number("model.init_args.overlap", setting.protocol.overlap)
    encode = setting.find_work("encode")
    windows = setting.count_cases("train", "val", "test") * setting.count_windows(overlap)
    fit = estimate_fit(_count_features(setting.entry), setting.count_cases("train"))
    weights = setting.encoder_gib()
    return Estimate(
        _PROBE_FACTOR * encode.tflop * windows + fit.tflop,
        weights + max(encode.gib, fit.gib),
    )


def estimate_fit(features: int, cases: int) -> Estimate:
    """Estimates the fit of the classifiers of a segmentation's probe.

    There is a sum of products of each training case, which stay in memory, and for each classifier
    of the curve a matrix is decomposed for each strength and each case that is left out.

    Args:
        features: The channels of all feature maps together.
        cases: The number of training cases.
    """
    subsets = [size for size in CURVE_SIZES if size < cases for _ in range(CURVE_DRAWS)]
    solved = sum(1 + (NUM_SHRINKAGES * size if size > 1 else 0) for size in (*subsets, cases))
    matrices = cases + _MATRICES_OF_A_FIT
    return Estimate(solved * features**3 / 3e12, matrices * features**2 * 8 / 2**30)


def _count_features(entry: zoo.Entry) -> int:
    """Returns the channels of all feature maps."""
    return sum(one.channels for one in entry.maps) or sum(swin_unetr.FACTORS) * work.width(entry)


def _estimate_segmentation(setting: _Setting) -> Estimate:
    """Estimates a training by crops, its validations, and the scoring of whole scans."""
    rules, task = setting.protocol, setting.task
    step = setting.find_work("train" if rules.trains_encoder else "train_decoder")
    segment = setting.find_work("segment")
    steps = setting.read_number("trainer.init_args.max_steps", task.steps)
    interval = setting.read_number("trainer.init_args.val_check_interval", task.val_interval)
    crops = setting.read_number("data.init_args.batch_size", task.training.batch_size)
    crops *= setting.read_number("data.init_args.num_samples", task.training.num_samples)
    windows = (
        steps
        // max(1.0, interval)
        * setting.count_cases("val")
        * setting.count_windows(
            setting.read_number("model.init_args.monitor_overlap", rules.monitor_overlap)
        )
    )
    windows += (
        _SCORED_CHECKPOINTS
        * setting.count_cases("val", "test")
        * setting.count_windows(setting.read_number("model.init_args.overlap", rules.overlap))
    )
    decoder = _TRAINED_COPIES * _BYTES * work.count_decoder_weights(setting.entry.name) / 2**30
    at_once = setting.read_number("model.init_args.sw_batch_size", 4)
    return Estimate(
        steps * crops * step.tflop + windows * segment.tflop,
        setting.encoder_gib() + decoder + max(crops * step.gib, at_once * segment.gib),
    )


def _estimate_classification(setting: _Setting) -> Estimate:
    """Estimates one embedding of each volume, or one in each training step that it is in."""
    encode = setting.find_work("encode")
    if setting.protocol.mode != "online":
        passes, at_once = setting.count_cases("train", "val", "test"), _PREDICTED_AT_ONCE
        return Estimate(passes * encode.tflop, setting.encoder_gib() + at_once * encode.gib)
    step = setting.find_work("train") if setting.protocol.trains_encoder else encode
    steps = setting.read_number("trainer.init_args.max_steps", setting.task.steps)
    interval = setting.read_number(
        "trainer.init_args.val_check_interval", setting.task.val_interval
    )
    at_once = setting.read_number("data.init_args.batch_size", 16)
    passes = steps // max(1.0, interval) * setting.count_cases("val")
    passes += _SCORED_CHECKPOINTS * setting.count_cases("val", "test")
    return Estimate(
        steps * at_once * step.tflop + passes * encode.tflop,
        setting.encoder_gib() + at_once * step.gib,
    )


def _read_setting(cell: Cell) -> _Setting | None:
    """Reads what a cell does; None if nothing is known of its network or its task."""
    entry = zoo.ENTRIES.get(cell.environment["MODEL_NAME"])
    task = catalog.TASKS.get(str(cell.values.get("trainer.init_args.task")))
    rules = protocols.PROTOCOLS.get(str(cell.values.get("trainer.init_args.protocol")))
    if entry is None or task is None or rules is None or "model.init_args.encoder" in cell.values:
        return None
    if cell.values.get(_WIDTH) != work.width(entry):
        return None
    return _Setting(entry, task, rules, cell.values)
