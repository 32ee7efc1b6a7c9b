"""The data of a task: its splits with their transforms and loaders."""

import pkgutil
import typing
from collections.abc import Sequence
from typing import Any

from eva.core.data import dataloaders, datamodules
from eva.core.data.datamodules import schemas
from eva.core.utils import parser
from eva.vision.data.dataloaders import collate_fn
from lightning.pytorch.utilities.types import EVAL_DATALOADERS, TRAIN_DATALOADERS
from loguru import logger
from typing_extensions import override

from eva_coralbay import errors
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.data import loader_workers, seeding, transforms, volume_transforms
from eva_coralbay.data.datasets import base, classification
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import facts, protocols, sides, splits


class _NumberedData(datamodules.DataModule):
    """Data whose training samples follow from the seed of the run and their number alone.

    A probe reads each training case once instead, in the order of the ids.
    """

    _is_probe = False

    @override
    def train_dataloader(self) -> TRAIN_DATALOADERS:
        if self._is_probe:
            return super().train_dataloader()
        trainer, loader = self.trainer, self.dataloaders.train
        if trainer is None:
            raise RuntimeError("The training samples follow from the run, which a trainer knows.")
        run_module: Any = trainer.lightning_module
        return seeding.SampleLoader(
            seeding.Samples(self.datasets.train, seed=run_module.run_seed),
            batch_size=loader.batch_size or 1,
            first_batch=lambda: trainer.global_step * trainer.accumulate_grad_batches,
            collate=loader.collate_fn,
            num_workers=loader.num_workers or 0,
        )


class SegmentationData(_NumberedData):
    """The train, val and test cases of a data set, as far as its split scheme has them."""

    def __init__(
        self,
        *,
        dataset: dict[str, Any],
        protocol: protocols.ProtocolName = "frozen",
        # single numbers are refused in one line, which the parser does not
        roi_size: Sequence[int] | int = facts.CROP,
        num_samples: int = 4,
        class_ratios: Sequence[float] | float | None = None,
        spacing: Sequence[float] | float = facts.SPACING_MM,
        hu_window: tuple[float, float] = facts.SOFT_TISSUE_HU,
        batch_size: int = 2,
        num_workers: int = 4,
    ) -> None:
        """Initializes the data module.

        Args:
            dataset: The `class_path` and the `init_args` of the data set, without split and
                transforms.
            protocol: Decides the split scheme of a public task, unless the data set names one.
            roi_size: The size of a crop in voxels, as (D, H, W).
            num_samples: The number of crops a scan.
            class_ratios: The chance of each label value to be the center of a crop, background
                first. Equal chances if None.
            spacing: The voxel spacing to resample to, in mm, as (D, H, W).
            hu_window: The lowest and the highest HU, which become 0 and 1.
            batch_size: The number of scans a training step.
            num_workers: The number of processes that load data.
        """
        self.protocol: protocols.ProtocolName = protocol
        self._is_probe = protocols.PROTOCOLS[protocol].mode == "probe"
        self._dataset = _with_scheme(dataset, protocol)
        self._spacing = errors.check_list(spacing, "spacing", "SPACING")
        self._has_described_mirroring = False
        self._own_input: tuple[Sequence[float], tuple[float, float]] | None = None
        errors.check_at_least(1, num_samples, "num_samples", "SAMPLE_BATCH_SIZE")
        if class_ratios is not None:
            class_ratios = errors.check_list(class_ratios, "class_ratios", "SAMPLE_CLASS_RATIOS")
        self._crops = {
            "roi_size": grid_lib.check_window(roi_size),
            "num_samples": num_samples,
            "class_ratios": class_ratios,
        }
        super().__init__(
            datasets=self._build_datasets(self._spacing, hu_window),
            dataloaders=schemas.DataloadersSchema(
                train=_loader(num_workers)
                if self._is_probe
                else _loader(
                    num_workers,
                    batch_size=batch_size,
                    collate_fn=collate_fn.collection_collate,
                ),
                val=_loader(num_workers),
                test=_loader(num_workers),
            ),
        )

    def use_input(self, *, spacing: Sequence[float] | None, hu_window: tuple[float, float]) -> None:
        """Prepares the scans for another input, before any of them is read.

        Args:
            spacing: The voxel spacing in mm, as (D, H, W); the one that it was made with if None.
            hu_window: The lowest and the highest HU, which become 0 and 1.
        """
        used = tuple(self._spacing if spacing is None else spacing), hu_window
        if used != self._own_input:  # it may be called for each run
            self._own_input = used
            self.datasets = self._build_datasets(*used)

    def _build_datasets(
        self, spacing: Sequence[float], hu_window: tuple[float, float]
    ) -> schemas.DatasetsSchema:
        """Builds the data sets of the splits that there are."""
        scoring = transforms.EvalTransform(spacing=spacing, hu_window=hu_window)
        augmenting = transforms.TrainTransform(spacing=spacing, hu_window=hu_window, **self._crops)
        training = scoring if self._is_probe else augmenting
        self._scoring, self._training = scoring, training
        train = _build(self._dataset, "train", training)
        val, test = (
            _build(self._dataset, split, scoring) if train.has_split(split) else None
            for split in ("val", "test")
        )
        return schemas.DatasetsSchema(train=train, val=val, test=test)

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        train = typing.cast(base.SegmentationDataset, self.datasets.train)
        pairs = _find_mirror_pairs(train.classes)
        if not self._has_described_mirroring:  # it is called for each run
            self._has_described_mirroring = True
            logger.info(_describe_mirroring(train.classes))
            if self.protocol == "frozen-eva":
                logger.info("But the training by frozen-eva mirrors scans and keeps all labels.")
        self._scoring.mirror_pairs = pairs
        # eva flips scans and keeps their labels, so a flipped left kidney is still a left one
        self._training.mirror_pairs = () if self.protocol == "frozen-eva" else pairs

    @override
    def val_dataloader(self) -> EVAL_DATALOADERS:
        return [] if self.datasets.val is None else super().val_dataloader()


class ClassificationData(_NumberedData):
    """The train, val and, where the split scheme has one, test cases of a classification task.

    They are volumes, or embeddings that are computed of all of them once (`predict`).
    """

    def __init__(
        self,
        *,
        dataset: dict[str, Any],
        transform: volume_transforms.VolumeTransform,
        train_transform: volume_transforms.VolumeTransform | None = None,
        protocol: protocols.ProtocolName = "frozen",
        embeddings_root: str | None = None,
        batch_size: int = 16,
        predict_batch_size: int = 16,
        num_workers: int = 4,
    ) -> None:
        """Builds the data sets of all splits.

        Args:
            dataset: The `class_path` and the `init_args` of the data set, without split and
                transforms.
            transform: What makes the input of the encoder of a volume.
            train_transform: The same in training, `transform` if None.
            protocol: Decides the split scheme, unless the data set names one.
            embeddings_root: The folder of the embeddings, to train on them and to score them. If
                None, volumes are.
            batch_size: The number of volumes or embeddings a step.
            predict_batch_size: The number of volumes whose embeddings are computed at once.
            num_workers: The number of processes that load data.

        Raises:
            EvaCoralbayError: If embeddings are to be transformed in training, or the protocol is
                for segmentations only, or for volumes where there are embeddings.
        """
        if embeddings_root is not None and train_transform is not None:
            raise EvaCoralbayError(
                "Embeddings are computed once, of what `transform` makes: leave out "
                "`train_transform`, or use the online config."
            )
        self.protocol: protocols.ProtocolName = protocol
        rules = protocols.PROTOCOLS[protocol]
        if rules.has_native_input:
            raise EvaCoralbayError(
                f"The protocol {protocol} is for segmentations: the volumes of a classification "
                "are cut or resized for all encoders alike. Choose another PROTOCOL."
            )
        if (embeddings_root is not None) != (rules.mode == "offline"):
            raise EvaCoralbayError(
                f"The protocol {protocol} (PROTOCOL) is not for this config: `frozen-offline` "
                "takes embeddings, with the configs in `offline/`, and all others take volumes."
            )
        self._is_probe = rules.mode == "probe"
        dataset = _with_scheme(dataset, protocol)
        train = _build_classification(
            dataset, "train", train_transform or transform, embeddings_root
        )
        inputs: dict[str, Any] = {"train": train}
        for split in ("val", "test"):
            if train.has_split(split):
                inputs[split] = _build_classification(dataset, split, transform, embeddings_root)
        volumes: list[Any] | None = None
        if embeddings_root is not None:
            volumes = [_build_classification(dataset, split, transform) for split in inputs]
        scoring = _loader(num_workers, batch_size=batch_size)
        super().__init__(
            datasets=schemas.DatasetsSchema(**inputs, predict=volumes),
            dataloaders=schemas.DataloadersSchema(
                train=_loader(num_workers, batch_size=batch_size),
                val=scoring,
                test=scoring,
                predict=_loader(num_workers, batch_size=predict_batch_size),
            ),
        )


def _find_mirror_pairs(classes: Sequence[str]) -> list[tuple[int, int]] | None:
    """Returns the label values that trade places in the mirror image of a body.

    Liver and spleen keep their labels: a mirrored liver is a liver. But a mirror image has no
    labels where a class is of one side only, such as the right middle lobe of the lung: its
    mirror image is something that no body has.

    Args:
        classes: The name of each label value.

    Returns:
        The pairs of label values, None if a class of one side has no partner.
    """
    if sides.find_unpaired(classes):
        return None
    return [(classes.index(a), classes.index(b)) for a, b in sides.find_pairs(classes)]


def _describe_mirroring(classes: Sequence[str]) -> str:
    """Says what the names of the classes are taken to mean in mirror images."""
    unpaired = sides.find_unpaired(classes)
    if unpaired:
        return (
            f"No mirror images are made, as their labels are not known for: {', '.join(unpaired)}. "
            "Classes of the left and the right are known by names such as left_kidney and "
            "right_kidney; parts of the heart and the liver are no such pairs."
        )
    pairs = sides.find_pairs(classes)
    paired = {name for pair in pairs for name in pair}
    others = [name for name in classes if name not in paired and name != facts.BACKGROUND]
    swapped = ", ".join(f"{first} and {second}" for first, second in pairs)
    return (
        f"In mirror images these labels trade places: {swapped or 'none'}. "
        f"These keep theirs: {', '.join(others) or 'none'}."
    )


def _with_scheme(dataset: dict[str, Any], protocol: protocols.ProtocolName) -> dict[str, Any]:
    """Returns the description of a data set with the split scheme of the protocol.

    It is the first one of the protocol's that the task has, unless the description names one.
    """
    arguments, task_id = dataset.get("init_args", {}), _task_of(dataset)
    if task_id is None or arguments.get("split_scheme") is not None:
        return dataset
    known = splits.read_splits(task_id).schemes
    schemes = (name for name in protocols.PROTOCOLS[protocol].split_schemes if name in known)
    return {**dataset, "init_args": {**arguments, "split_scheme": next(schemes, None)}}


def _task_of(dataset: dict[str, Any]) -> str | None:
    """Returns the id of the task, None for own data."""
    facts = getattr(pkgutil.resolve_name(dataset["class_path"]), "facts", None)
    return None if facts is None else facts.id


def _build_classification(
    dataset: dict[str, Any],
    split: str,
    transform: volume_transforms.VolumeTransform,
    embeddings_root: str | None = None,
) -> classification.ClassificationDataset:
    """Builds the data set of a split."""
    arguments = {
        **dataset.get("init_args", {}),
        "split": split,
        "transforms": transform,
        "embeddings_root": embeddings_root,
    }
    return parser.parse_object(
        {**dataset, "init_args": arguments}, expected_type=classification.ClassificationDataset
    )


def _build(
    dataset: dict[str, Any],
    split: str,
    transform: transforms.EvalTransform,
) -> base.SegmentationDataset:
    """Builds the data set of a split."""
    arguments = {**dataset.get("init_args", {}), "split": split, "transforms": transform}
    return parser.parse_object(
        {**dataset, "init_args": arguments}, expected_type=base.SegmentationDataset
    )


def _loader(num_workers: int, *, batch_size: int = 1, **arguments: Any) -> dataloaders.DataLoader:
    errors.check_at_least(0, num_workers, "num_workers", "N_DATA_WORKERS")
    errors.check_at_least(1, batch_size, "batch_size", "BATCH_SIZE, PREDICT_BATCH_SIZE")
    return dataloaders.DataLoader(
        num_workers=num_workers,
        batch_size=batch_size,
        persistent_workers=num_workers > 0,
        prefetch_factor=loader_workers.PREFETCHED if num_workers > 0 else None,
        **arguments,
    )
