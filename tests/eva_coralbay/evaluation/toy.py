"""A run of eva's trainer that takes a second: one convolution on three tiny volumes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import eva
import torch
from eva.core import metrics as eva_metrics
from eva.core.data import dataloaders, datamodules
from eva.core.data.datamodules import schemas
from eva.core.metrics import structs
from eva.core.models.modules import module
from lightning.pytorch import callbacks, loggers
from torch import nn
from torch.utils import data as torch_data

from eva_coralbay.evaluation import label_maps, metrics

CLASSES = ["background", "liver", "spleen"]

CONFIG = """
trainer:
  class_path: eva.Trainer
  init_args:
    n_runs: 1
    default_root_dir: ${oc.env:OUTPUT_ROOT, logs}
    max_steps: ${oc.env:MAX_STEPS, 6}
    max_epochs: null
    check_val_every_n_epoch: null
    val_check_interval: 2
    checkpoint_type: last
    num_sanity_val_steps: 0
    accelerator: cpu
    enable_progress_bar: false
    enable_model_summary: false
    callbacks:
      - class_path: lightning.pytorch.callbacks.ModelCheckpoint
        init_args:
          filename: best
          monitor: val/dice
          mode: max
      - class_path: lightning.pytorch.callbacks.ModelCheckpoint
        init_args:
          filename: last
      - class_path: eva_coralbay.evaluation.recorder.Recorder
        init_args:
          task: toy
          task_version: "1"
model:
  class_path: tests.eva_coralbay.evaluation.toy.ToyModule
  init_args:
    lr: 0.3
data:
  class_path: eva.DataModule
  init_args:
    datasets:
      train:
        class_path: tests.eva_coralbay.evaluation.toy.ToyDataset
        init_args:
          first_seed: 10
      val:
        class_path: tests.eva_coralbay.evaluation.toy.ToyDataset
    dataloaders:
      train: &LOADER
        batch_size: 1
        num_workers: 0
        persistent_workers: false
        prefetch_factor: null
      val: *LOADER
"""
"""The configuration of the same run, for eva's command."""


class ToyDataset(torch_data.Dataset):
    """Volumes whose bright voxels are the liver; the spleen is in one of them only."""

    classes = CLASSES
    name = "Toy"
    license = "CC0-1.0"
    split_name = "fold_0"

    def __init__(self, n_cases: int = 3, first_seed: int = 0) -> None:
        """Initializes the data set."""
        self.case_ids = [f"case_{first_seed + index}" for index in range(n_cases)]
        self._first_seed = first_seed

    def checksums(self) -> dict[str, str]:
        return {"images": hashlib.sha256(str(self.case_ids).encode()).hexdigest()}

    def __len__(self) -> int:
        return len(self.case_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(self._first_seed + index)
        image = torch.rand(1, 6, 8, 10, generator=generator)
        target = (image > 0.6).long()
        if index == 0:
            target[:, 3:5, 2:6, 2:6] = 2
        return image, target, {"case": self.case_ids[index]}


class UnknownDataset(torch_data.Dataset):
    """The same without anything but samples, as eva's data sets are."""

    def __init__(self) -> None:
        """Initializes the data set."""
        self._toy = ToyDataset()

    def __len__(self) -> int:
        return len(self._toy)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        image, target, _ = self._toy[index]
        return image, target, {}


class ToyEncoder(nn.Module):
    """A convolution for each feature map, with a batch norm, which drifts in training."""

    def __init__(
        self,
        *,
        channels: Sequence[int] = (4,),
        strides: Sequence[int] = (1,),
        pooled: bool = False,
        dropout: float = 0.0,
        slope: float = 1.0,
        unused: int = 0,
        seed: int | None = None,
    ) -> None:
        """Initializes the encoder.

        Args:
            channels: The width of each feature map.
            strides: How many voxels a voxel of each feature map is the mean of, along each axis.
            pooled: Whether it gives a vector a volume in place of feature maps.
            dropout: The rate of the dropout, whose random numbers must be those of the step.
            slope: What the features are multiplied by: another encoder with the same weights.
            unused: The number of weights that do nothing, but for which random numbers are drawn.
            seed: What the weights follow from; the random numbers of the run if None.
        """
        super().__init__()
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.BatchNorm3d(width), nn.Tanh())
                for width in channels
            )
        self.unused = nn.Linear(unused, 1) if unused else None
        self._strides = strides
        self._pooled, self._dropout, self._slope = pooled, dropout, slope

    def forward(self, tensor: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        maps = [
            nn.functional.dropout(
                layer(nn.functional.avg_pool3d(tensor, stride)) * self._slope,
                self._dropout,
                self.training,
            )
            for layer, stride in zip(self.layers, self._strides, strict=True)
        ]
        if not self._pooled:
            return maps
        return torch.cat([part.mean(dim=(2, 3, 4)) for part in maps], dim=1)


class ToyDecoder(nn.Module):
    """One convolution from the only feature map to the classes."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv3d(4, out_channels, 1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.layer(features[0])


class ToyModule(module.ModelModule):
    """A module that keeps the contract of the recorder."""

    def __init__(self, *, lr: float = 0.3, worsens: bool = False, seed: int = 0) -> None:
        """Initializes the module; one that `worsens` has its best checkpoint first."""
        super().__init__()

        self.encoder = nn.Conv3d(1, len(CLASSES), kernel_size=1)
        self.protocol = "frozen"
        self.run_seed = seed
        self.encoder_sha256 = "0" * 64
        self._lr = lr
        self._worsens = worsens
        self.encoder.load_state_dict(
            {
                "weight": torch.tensor([0.0, 2.0, 0.0]).reshape(3, 1, 1, 1, 1),
                "bias": torch.tensor([0.0, -1.0, -1.0]),
            }
        )

    @property
    def default_metrics(self) -> structs.MetricsSchema:
        return structs.MetricsSchema(
            train=eva_metrics.AverageLoss(), evaluation=metrics.CaseSegmentation(CLASSES)
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self._lr, maximize=self._worsens)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        image, target, _ = batch
        return {"loss": nn.functional.cross_entropy(self.encoder(image), target[:, 0])}

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        image, target, metadata = batch
        labels = label_maps.argmax_labels(self.encoder(image))
        return {"predictions": labels, "targets": target, "metadata": metadata}

    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        return self.validation_step(batch)


def savers() -> list[callbacks.Callback]:
    """The callbacks that save the best and the last checkpoint."""
    return [
        callbacks.ModelCheckpoint(filename="best", monitor="val/dice", mode="max"),
        callbacks.ModelCheckpoint(filename="last"),
    ]


def trainer(
    root: str, extra: Sequence[callbacks.Callback], *, max_steps: int = 6, **kwargs: Any
) -> eva.Trainer:
    """A trainer that validates and saves every second step, on CPU."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "callbacks": [*savers(), *extra],
        "check_val_every_n_epoch": None,
        "checkpoint_type": "last",
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": loggers.CSVLogger(root),
        "max_epochs": None,
        "n_runs": 1,
        "num_sanity_val_steps": 0,
        "val_check_interval": 2,
    }
    return eva.Trainer(
        default_root_dir=root,
        max_steps=max_steps,
        **(defaults | kwargs),
    )


def datamodule(*, val: Any = None, test: Any = None, batch_size: int = 1) -> datamodules.DataModule:
    """The data of a run; validation and training volumes differ."""
    loader = dataloaders.DataLoader(
        batch_size=batch_size, persistent_workers=False, prefetch_factor=None, num_workers=0
    )
    return datamodules.DataModule(
        datasets=schemas.DatasetsSchema(
            train=ToyDataset(first_seed=10), val=val or ToyDataset(), test=test
        ),
        dataloaders=schemas.DataloadersSchema(train=loader, val=loader, test=loader),
    )
