"""The module of the protocol `probe`: a linear classifier on frozen features, in closed form."""

from collections.abc import Sequence
from typing import Any

import torch
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules.typings import INPUT_TENSOR_BATCH
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from typing_extensions import override

from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import native_grid, run_module
from eva_coralbay.evaluation.probe import base, classifier, curve_metric, scans, subsets, sums
from eva_coralbay.tasks import facts, protocols


class ProbeModule(base.FrozenModule):
    """Solves for linear classifiers on an encoder's feature maps, and segments by them.

    The fit reads each training case once and keeps the features of the voxels that are drawn from
    it. At its end there is a classifier of every subset of the cases that
    :func:`eva_coralbay.evaluation.probe.subsets.draw` names; that of all cases is the one that
    segments, the others give the label-efficiency curve. Nothing is trained, so a run equals its
    repetition, and neither the batch size nor the number of workers matters. The classifier of all
    cases is what :mod:`eva_coralbay.evaluation.probe.classifier_file` keeps.
    """

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | nn.Module,
        task: str = "",
        protocol: protocols.ProtocolName = "probe",
        seed: int = 0,
        # a single number is refused, which `check_window` says in one line and the parser does not
        roi_size: Sequence[int] | int = facts.CROP,
        overlap: float | None = None,
        maps: sums.Maps = "all",
        voxels_per_class: int = sums.VOXELS_PER_CLASS,
        background_voxels: int = sums.BACKGROUND_VOXELS,
    ) -> None:
        """Initializes the module.

        Args:
            encoder: The backbone, or its `class_path` and `init_args`, from which each run
                builds one. It maps [B, 1, D, H, W] to a list of feature maps, fine to coarse, of
                any number and resolution.
            task: The id of the task, which the subsets of its cases follow from.
            protocol: Decides how it is scored.
            seed: The seed of run 0; run k has `seed` + k. Only a random encoder depends on it.
            roi_size: The size of a window in voxels, as (D, H, W), unless the protocol gives each
                encoder its own.
            overlap: The smallest overlap of two windows, as a share of the window; the
                protocol's if None.
            maps: Which feature maps count.
            voxels_per_class: How many voxels of each foreground class are drawn from a case.
            background_voxels: How many voxels of the background are drawn.
        """
        super().__init__(encoder=encoder, task=task, protocol=protocol, seed=seed)

        size = grid_lib.check_window(roi_size)
        self.arguments = {
            "encoder": encoder,
            "task": task,
            "protocol": protocol,
            "seed": seed,
            "roi_size": list(size),
            "overlap": overlap,
            "maps": maps,
        }
        self.classifiers: list[classifier.Classifier] = []
        self.subsets: list[subsets.Subset] = []

        share = protocols.PROTOCOLS[protocol].overlap if overlap is None else overlap
        self.sliding = scans.Sliding(size, share)
        self._maps: sums.Maps = maps
        self.voxels_per_class = voxels_per_class
        self.background_voxels = background_voxels
        self._samples: dict[str, sums.Samples] = {}

    @override
    def build_encoder(self) -> None:
        super().build_encoder()
        if self.own_input is not None and self.own_input.window is not None:
            depth, height, width = self.own_input.to_scan_order(self.own_input.window)
            size = (int(depth), int(height), int(width))
            self.sliding = scans.Sliding(size, self.sliding.overlap)

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        return metrics_lib.MetricsSchema(evaluation=curve_metric.CurveSegmentation())

    @override
    def training_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        data, targets, metadata = INPUT_TENSOR_BATCH(*batch)
        cases = (metadata or {}).get("case")
        if cases is None:
            raise EvaCoralbayError("The probe needs the id of each case as `{'case': [...]}`.")
        for image, mask, case in zip(data, targets, cases, strict=True):
            draw = sums.draw_voxels(
                mask[0],
                case,
                n_classes=len(self.classes),
                per_class=self.voxels_per_class,
                background=self.background_voxels,
            )
            self._samples[case] = scans.sample_case(
                self.encoder,
                image,
                draw,
                sliding=self.sliding,
            )
        return None

    @override
    def on_train_epoch_end(self) -> None:
        cases = dict(sorted(self._samples.items()))
        self._samples = {}
        self.subsets = subsets.draw(self.task, list(cases))
        self.classifiers = classifier.fit_subsets(cases, self.subsets, maps=self._maps)

    @torch.no_grad()
    def compute_logits(self, data: torch.Tensor) -> torch.Tensor:
        """Segments whole scans by the classifier of all training cases, as they are scored.

        Args:
            data: The scans as the encoder takes them, of shape [B, 1, D, H, W].

        Returns:
            The logits, of shape [B, classes, D, H, W].
        """
        fitted = self.classifiers[-1:]
        return torch.stack(
            [
                scans.segment_scan(self.encoder, image, fitted, sliding=self.sliding).logits
                for image in data
            ]
        )

    @override
    def validation_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._segment(batch)

    @override
    def test_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._segment(batch)

    def _segment(self, batch: INPUT_TENSOR_BATCH) -> STEP_OUTPUT:
        """Segments whole scans by every classifier.

        Returns:
            The label maps [B, D, H, W] of the classifier of all training cases, beside the
            targets, the metadata, and the Dice of all classifiers as `curve`.
        """
        data, targets, metadata = INPUT_TENSOR_BATCH(*batch)
        predictions, logits, curves = [], [], []
        for image, mask in zip(data, targets, strict=True):
            labels, of_all = scans.segment_scan(
                self.encoder,
                image,
                self.classifiers,
                sliding=self.sliding,
            )
            predictions.append(labels[-1])
            logits.append(of_all)
            curves.append(curve_metric.dice(labels, mask[0], n_classes=len(self.classes)))
        if metadata is not None and "affine" in metadata:
            dataset = run_module.scored_dataset(self.trainer)
            native = native_grid.restore_cases(torch.stack(logits), metadata, dataset)
            metadata = {**metadata, "native": native}
        return {
            "predictions": torch.stack(predictions),
            "targets": targets,
            "metadata": metadata,
            "curve": torch.stack(curves),
            "labeled_cases": [(subset.size, subset.draw) for subset in self.subsets],
        }
