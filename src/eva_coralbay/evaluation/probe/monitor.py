"""Follows a pre-training on labeled scans, by a linear probe of the teacher."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as pl_callbacks
from loguru import logger
from typing_extensions import override

from eva_coralbay.data import modules
from eva_coralbay.evaluation.probe import classifier, scans, sums
from eva_coralbay.tasks import facts


class ProbeMonitor(pl_callbacks.Callback):
    """Logs how well the teacher's feature maps tell the classes of labeled scans.

    Some train cases fit the classifier and some val or test cases are scored, by their drawn
    voxels alone. Logged are `probe/balanced_accuracy`, the mean recall of all classes if they were
    equally frequent, and `probe/dice`, an estimate. The first value is that of the untrained
    encoder. The labels serve to look at the training, not to train.
    """

    def __init__(
        self,
        *,
        dataset: dict[str, Any],
        every_n_steps: int = 1000,
        spacing: Sequence[float] = facts.SPACING_MM,
        hu_window: tuple[float, float] = facts.SOFT_TISSUE_HU,
        roi_size: Sequence[int] = facts.CROP,
        maps: sums.Maps = "all",
        max_cases: int = 20,
    ) -> None:
        """Initializes the callback.

        Args:
            dataset: The `class_path` and the `init_args` of a segmentation data set, as
                :class:`eva_coralbay.data.SegmentationData` takes them.
            every_n_steps: The number of training steps between two probes.
            spacing: The voxel spacing to resample to, in mm, as (D, H, W).
            hu_window: The lowest and the highest HU, which become 0 and 1.
            roi_size: The size of a window in voxels, as (D, H, W).
            maps: Which feature maps count.
            max_cases: The most cases of each of the two splits that are used, the first by id.
        """
        super().__init__()

        depth, height, width = roi_size
        self._every_n_steps = every_n_steps
        self._sliding = scans.Sliding((depth, height, width))
        self._maps: sums.Maps = maps
        self._max_cases = max_cases
        self._data = modules.SegmentationData(
            dataset=dataset,
            protocol="probe",
            spacing=spacing,
            hu_window=hu_window,
            num_workers=0,
        )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._data.prepare_data()
        self._data.setup("fit")
        self._data.setup("test")
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        ends_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if ends_step and (step % self._every_n_steps == 0 or step == trainer.max_steps):
            self._probe(trainer, pl_module)

    @torch.no_grad()
    def _probe(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Fits and scores a classifier, and logs what it reached."""
        if not trainer.is_global_zero:
            return
        encoder = pl_module.teacher.encoder
        was_training = encoder.training
        encoder.eval()
        known = self._data.datasets
        train, scored = (
            self._sample(encoder.forward_features, dataset, pl_module.device)
            for dataset in (known.train, known.val or known.test)
        )
        encoder.train(was_training)
        maps = sums.resolve_maps(self._maps, len(train[0].channels))
        train, scored = ([case.select(maps) for case in cases] for cases in (train, scored))
        fitted = classifier.fit(train, [sums.Sums.of(case) for case in train], maps=maps)
        values = {
            "probe/dice": _mean([_dice(case, fitted) for case in scored]),
            "probe/balanced_accuracy": _mean([_accuracy(case, fitted) for case in scored]),
        }
        logger.info(f"Probe at step {trainer.global_step}: {values}")
        for trainer_logger in trainer.loggers:
            trainer_logger.log_metrics(values, step=trainer.global_step)

    def _sample(
        self, encoder: scans.Encoder, dataset: Any, device: torch.device
    ) -> list[sums.Samples]:
        """Returns the features of the drawn voxels of the first cases of a split."""
        samples = []
        for index in range(min(len(dataset), self._max_cases)):
            image, mask, metadata = dataset[index]
            draw = sums.draw_voxels(mask[0], metadata["case"], n_classes=len(dataset.classes))
            samples.append(
                scans.sample_case(encoder, image.to(device), draw, sliding=self._sliding)
            )
        return samples


def _dice(case: sums.Samples, fitted: classifier.Classifier) -> float:
    return float(classifier.estimate_dice(case, fitted.weights[None], fitted.bias[None])[0])


def _accuracy(case: sums.Samples, fitted: classifier.Classifier) -> float:
    """Returns the mean recall of the classes that a case has."""
    logits = case.features.double() @ fitted.weights.T + fitted.balanced_bias
    correct = (logits.argmax(dim=1) == case.labels).double()
    recalls = [correct[case.labels == label].mean() for label in case.labels.unique()]
    return float(torch.stack(recalls).mean())


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).nanmean())
