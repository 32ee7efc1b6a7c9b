"""The classification module of the leaderboard's protocols."""

import json
import os
from typing import Any

import lightning.pytorch as pl
import torch
from eva.core import metrics as eva_metrics
from eva.core.callbacks.writers import embeddings
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules.typings import INPUT_TENSOR_BATCH
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from typing_extensions import override

from eva_coralbay import _atomic_files
from eva_coralbay.data.datasets.classification import base
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import metrics, run_module
from eva_coralbay.models import description
from eva_coralbay.tasks import protocols

_PARTS = {"fit": "train", "validate": "val", "test": "test"}
"""The data set that a stage begins with."""


class ClassificationModule(run_module.RunModule):
    """Trains a linear head on the embedding of an encoder, and the encoder too unless frozen.

    A batch holds volumes [B, C, D, H, W] or, with a frozen encoder, embeddings [B, E] that
    `predict` has made of them. The encoder of embeddings has the seed of run 0.
    """

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | nn.Module,
        criterion: nn.Module | None = None,
        protocol: protocols.ProtocolName = "frozen",
        seed: int = 0,
        lr: float = 1e-3,
        lr_end: float = 1e-5,
        weight_decay: float = 0.01,
    ) -> None:
        """Initializes the module.

        Args:
            encoder: The backbone, or its `class_path` and `init_args`, from which each run
                builds one. It maps [B, C, D, H, W] to [B, E].
            criterion: The loss on logits [B, classes] and classes [B], cross-entropy if None.
            protocol: Decides what is trained.
            seed: The seed of run 0; run k has `seed` + k.
            lr: The learning rate at the start.
            lr_end: The learning rate that the cosine schedule ends with.
            weight_decay: The weight decay of AdamW.

        Raises:
            EvaCoralbayError: If the protocol trains no head.
        """
        if protocols.PROTOCOLS[protocol].mode not in ("online", "offline"):
            raise EvaCoralbayError(
                f"A head is not trained by the protocol '{protocol}' (PROTOCOL): take the config "
                "of that protocol, such as `probe/luna25`."
            )
        super().__init__(
            protocol=protocol, seed=seed, lr=lr, lr_end=lr_end, weight_decay=weight_decay
        )

        self.encoder = encoder
        self.head: nn.Linear | None = None
        self.criterion = criterion or nn.CrossEntropyLoss()

        self._is_frozen = not protocols.PROTOCOLS[protocol].trains_encoder
        self.example: torch.Tensor | None = None
        self._encoder_identity: dict[str, Any] = {}
        self._input_identity: dict[str, Any] = {}
        self._embeddings_of: dict[str, Any] | None = None

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        return metrics_lib.MetricsSchema(
            train=eva_metrics.AverageLoss(), evaluation=metrics.CaseClassification()
        )

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "predict" and self.head is None:
            dataset = getattr(run_module.datasets(self.trainer), _PARTS[stage])
            self.example = dataset[0][0][None]
            self._input_identity = dataset.describe_inputs()
            self._embeddings_of = dataset.embeddings_of()

    @override
    def configure_model(self) -> None:
        if self._trainer is None:
            # eva calls this before the run is seeded, Lightning once more after
            return
        self.build_networks()

    def build_networks(self) -> None:
        """Builds the encoder, where it is a specification, and the head for the example.

        The classes must be known.
        """
        # embeddings are made by an encoder of the seed of run 0
        seed = self.run_seed if self._embeddings_of is None else self.seed
        self.encoder = self._build(self.encoder, "encoder", seed)
        if self.encoder_sha256 is None and isinstance(self.encoder, nn.Module):
            self.encoder_sha256 = run_module.encoder_sha256(self.encoder)
            self._encoder_identity = description.describe_encoder(self.encoder)
        self._check_embeddings()
        if self.head is None and self.example is not None:
            width = self._width(self.example)
            self._seed_part("decoder")
            self.head = nn.Linear(width, len(self.classes))
            self.example = None
        self.train(self.training)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._is_frozen:
            state = checkpoint["state_dict"]
            kept = [name for name in state if not name.startswith("encoder.")]
            checkpoint["state_dict"] = {name: state[name] for name in kept}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self._is_frozen:
            checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}

    @override
    def train(self, mode: bool = True) -> "ClassificationModule":
        super().train(mode)
        if self._is_frozen and isinstance(self.encoder, nn.Module):
            self.encoder.requires_grad_(False).eval()
        return self

    @override
    def forward(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.head is None:
            raise RuntimeError("The head is built when the training or the scoring begins.")
        features = tensor if tensor.ndim == 2 else self._encode(tensor)
        return self.head(features)

    @override
    def training_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        data, targets, _ = INPUT_TENSOR_BATCH(*batch)
        return {"loss": self.criterion(self(data), targets)}

    @override
    def validation_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._classify(batch)

    @override
    def test_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._classify(batch)

    @override
    def predict_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._encode(INPUT_TENSOR_BATCH(*batch).data)

    def describe_embeddings(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Returns what embeddings are made of.

        Args:
            inputs: What the input of the encoder is made of.
        """
        return {"weights": self.encoder_sha256, "encoder": self._encoder_identity, **inputs}

    def _classify(self, batch: INPUT_TENSOR_BATCH) -> STEP_OUTPUT:
        """Predicts the classes of a batch.

        Returns:
            The probabilities [B, classes], beside the targets and the metadata of the batch.
        """
        data, targets, metadata = INPUT_TENSOR_BATCH(*batch)
        return {
            "predictions": self(data).float().softmax(dim=1),
            "targets": targets,
            "metadata": metadata,
        }

    def _encode(self, volumes: torch.Tensor) -> torch.Tensor:
        """Computes the embeddings [B, E] of volumes.

        Raises:
            EvaCoralbayError: If the encoder gives something else.
        """
        embeddings: Any = self.encoder(volumes)  # type: ignore[reportCallIssue]  # built by now
        if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2:
            raise EvaCoralbayError(
                "A classification needs one embedding [B, E] of the encoder, not feature maps: "
                "leave its `out_indices` None."
            )
        return embeddings

    def _check_embeddings(self) -> None:
        """Checks that embeddings are of this encoder and data, and that it is frozen.

        Raises:
            EvaCoralbayError: If not.
        """
        if self._embeddings_of is None:
            return
        if not self._is_frozen:
            raise EvaCoralbayError(
                f"Protocol '{self.protocol}' trains the encoder, so it needs the volumes and not "
                "their embeddings: use the online config."
            )
        made_of, wanted = self._embeddings_of, self.describe_embeddings(self._input_identity)
        differences = [
            f"  - {part}: {made_of.get(part)} in the folder, {value} in the config"
            for part, value in wanted.items()
            if made_of.get(part) != value
        ]
        if differences:
            raise EvaCoralbayError(
                "The embeddings in the folder were computed with settings that differ:\n"
                + "\n".join(differences)
                + "\nChoose another EMBEDDINGS_ROOT, or delete the folder, and run "
                "`eva predict_fit`."
            )

    def _width(self, example: torch.Tensor) -> int:
        """Returns the length of an embedding."""
        if example.ndim == 2:
            return example.shape[1]
        with torch.no_grad():
            self.encoder.eval()  # type: ignore[reportAttributeAccessIssue]  # built by now
            weight = next(self.encoder.parameters())  # type: ignore[reportAttributeAccessIssue]  # built by now
            return self._encode(example.to(weight)).shape[1]


class EmbeddingsWriter(embeddings.ClassificationEmbeddingsWriter):
    """Writes the embeddings of all splits, and last what they are made of."""

    def __init__(self, output_dir: str) -> None:
        """Initializes the callback.

        Args:
            output_dir: The folder of the embeddings, one for each encoder and task.
        """
        super().__init__(output_dir, dataloader_idx_map={0: "train", 1: "val", 2: "test"})

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_predict_end(trainer, pl_module)
        path = os.path.join(self._output_dir, base.EMBEDDINGS_FILE)
        inputs = run_module.datasets(trainer).predict[0].describe_inputs()
        made_of: Any = pl_module.describe_embeddings(inputs)  # type: ignore[reportCallIssue]  # the module is ours
        _atomic_files.write_atomically(path, json.dumps(made_of, indent=2).encode())
