"""The module of the protocol `probe` for classifications: classifiers of embeddings."""

from typing import Any

import loguru
import numpy as np
import numpy.typing as npt
import torch
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules.typings import INPUT_TENSOR_BATCH
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import base, curve_classification, embedding_classifiers, subsets
from eva_coralbay.tasks import protocols


class EmbeddingProbeModule(base.FrozenModule):
    """Fits classifiers to the embeddings of an encoder, and predicts by them.

    The fit computes the embedding of each training case once. At its end there are a logistic
    regression and a vote of nearest neighbors of every subset of the cases that
    :func:`eva_coralbay.evaluation.probe.subsets.draw_by_class` names; the logistic regression of
    all cases is the one that counts, the others give the label-efficiency curves. Each volume is
    encoded by itself, so a run equals its repetition, and neither the batch size nor the number of
    workers matters. It saves nothing.
    """

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | nn.Module,
        task: str = "",
        protocol: protocols.ProtocolName = "probe",
        seed: int = 0,
    ) -> None:
        """Initializes the module.

        Args:
            encoder: The backbone, or its `class_path` and `init_args`, from which each run
                builds one. It maps [B, 1, D, H, W] to an embedding [B, E], or to feature maps,
                whose means over the voxels are concatenated.
            task: The id of the task, which the subsets of its cases follow from.
            protocol: Decides how it is scored.
            seed: The seed of run 0; run k has `seed` + k. Only a random encoder depends on it.
        """
        super().__init__(encoder=encoder, task=task, protocol=protocol, seed=seed)

        self.classifiers: list[embedding_classifiers.Classifiers] = []
        self.subsets: list[subsets.Subset] = []

        self._embeddings: dict[str, npt.NDArray[np.float64]] = {}
        self._cases: dict[str, subsets.LabeledCase] = {}

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        return metrics_lib.MetricsSchema(evaluation=curve_classification.CurveClassification())

    @override
    def training_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        data, targets, metadata = INPUT_TENSOR_BATCH(*batch)
        if metadata is None or "case" not in metadata:
            raise EvaCoralbayError("The probe needs the id of each case as `{'case': [...]}`.")
        cases = metadata["case"]
        patients = metadata.get("patient", cases)
        for volume, label, case, patient in zip(data, targets, cases, patients, strict=True):
            self._embeddings[case] = embed(self.encoder, volume)
            self._cases[case] = subsets.LabeledCase(patient, int(label))
        return None

    @override
    def on_train_epoch_end(self) -> None:
        n_classes = len(self.classes)
        self.subsets = subsets.draw_by_class(self.task, self._cases, n_classes=n_classes)
        self._warn_of_rare_classes()
        self.classifiers = [
            embedding_classifiers.fit(self._label(subset), n_classes=n_classes)
            for subset in self.subsets
        ]
        self._embeddings, self._cases = {}, {}

    @override
    def validation_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._predict(batch)

    @override
    def test_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._predict(batch)

    def _label(self, subset: subsets.Subset) -> embedding_classifiers.Labeled:
        """Returns the labeled embeddings of a subset, in the order of the ids."""
        cases = sorted(subset.cases)
        return embedding_classifiers.Labeled(
            np.stack([self._embeddings[case] for case in cases]),
            np.array([self._cases[case].label for case in cases]),
            np.array([self._cases[case].patient for case in cases]),
        )

    def _warn_of_rare_classes(self) -> None:
        """Says which classes have fewer labeled cases than the curve asks for, or none."""
        labels = [case.label for case in self._cases.values()]
        wanted = max((subset.size for subset in self.subsets[:-1]), default=1)
        counts = {name: labels.count(index) for index, name in enumerate(self.classes)}
        rare = {name: count for name, count in counts.items() if count < wanted}
        if rare:
            listed = ", ".join(f"{name} ({count})" for name, count in rare.items())
            loguru.logger.warning(
                f"Of these classes there are fewer than {wanted} training cases: {listed}. All of "
                "them are used where more are asked for; a class without any is never predicted."
            )

    def _predict(self, batch: INPUT_TENSOR_BATCH) -> STEP_OUTPUT:
        """Predicts the classes of a batch by every classifier.

        Returns:
            The probabilities [B, classes] of the logistic regression of all training cases, beside
            the targets, the metadata, and those of all classifiers as `curve`, of shape
            [B, 2, subsets, classes].
        """
        data, targets, metadata = INPUT_TENSOR_BATCH(*batch)
        embeddings = [embed(self.encoder, volume) for volume in data]
        curve = np.stack(
            [
                np.stack([one.predict(embedding) for one in self.classifiers], axis=1)
                for embedding in embeddings
            ]
        )
        return {
            "predictions": torch.from_numpy(curve[:, 0, -1]),
            "targets": targets,
            "metadata": metadata,
            "curve": torch.from_numpy(curve),
            "labeled_cases": [(subset.size, subset.draw) for subset in self.subsets],
        }


@torch.no_grad()
def embed(encoder: Any, volume: torch.Tensor) -> npt.NDArray[np.float64]:
    """Computes the embedding of a volume, without any other volume in the batch.

    Args:
        encoder: Maps [1, C, D, H, W] to an embedding [1, E], or to feature maps [1, c, d, h, w].
        volume: The volume, of shape [C, D, H, W], on the encoder's device.

    Returns:
        The embedding, of shape [E]; of feature maps the mean of each over its voxels, from fine to
        coarse.

    Raises:
        EvaCoralbayError: If the encoder gives something else, or a number that is not finite.
    """
    output = encoder(volume[None])
    parts = [output] if isinstance(output, torch.Tensor) else list(output)
    shapes = [tuple(part.shape) for part in parts]
    if not parts or any(len(shape) not in (2, 5) or shape[0] != 1 for shape in shapes):
        raise EvaCoralbayError(
            f"Of one volume the encoder gives {shapes}, but the probe of a classification needs "
            "an embedding [1, E] or feature maps [1, c, d, h, w]."
        )
    # an embedding [E] is as maps [E, 1] of one voxel
    pooled = [part[0].double().unsqueeze(-1).flatten(1).mean(dim=1) for part in parts]
    embedding = torch.cat(pooled).cpu().numpy()
    if not np.isfinite(embedding).all():
        raise EvaCoralbayError(
            "The encoder gives an embedding with numbers that are not finite: compute in a wider "
            "precision, or check its weights."
        )
    return embedding
