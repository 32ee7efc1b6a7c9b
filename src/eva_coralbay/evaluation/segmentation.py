"""The segmentation module of the leaderboard's protocols."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from eva.core import metrics as eva_metrics
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules.typings import INPUT_TENSOR_BATCH
from eva.vision import losses as eva_losses
from eva.vision.models import modules
from eva.vision.models.networks.decoders.segmentation.semantic import swin_unetr
from lightning.pytorch.trainer import states
from lightning.pytorch.utilities.types import STEP_OUTPUT
from monai import inferers
from torch import nn
from typing_extensions import override

from eva_coralbay import errors
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import (
    label_maps,
    metrics,
    native_grid,
    pyramid_decoder,
    run_module,
)
from eva_coralbay.tasks import facts, protocols

SWIN_UNETR_DECODERS = (swin_unetr.SwinUNETRDecoder, swin_unetr.SwinUNETRDecoderWithProjection)
"""The decoders that double the resolution five times."""

_ROI_MULTIPLE = 32
"""The ROI must be a multiple of this, as the decoder doubles the resolution five times."""

_ROI_MINIMUM = 64
"""The smallest ROI: below it the deepest feature map is one voxel, which has no variance."""


_MAX_LOGITS_BYTES = 8 * 2**30
"""The size of a scan's logits from which on they are kept in the memory of the CPU: 118 classes of
a whole body take 30 GiB."""


class SegmentationModule(run_module.RunModule, modules.SemanticSegmentationModule):
    """Trains a decoder on an encoder, and the encoder too unless it is frozen.

    What it changes of eva's :class:`SemanticSegmentationModule`:

    - Each run has a seed of its own (see :class:`RunModule`), so run k equals a single run whose
      `seed` is `seed` + k.
    - A frozen encoder is in eval mode and computes no graph; a trained one is saved with the
      decoder, so that a checkpoint is the model that is scored.
    - While fitting, the validation only monitors (windows overlap by `monitor_overlap`);
      `validate` and `test` score (`overlap`).
    - The evaluation steps return label maps, and :class:`CaseSegmentation` scores them case by
      case, on the scan's own grid when a checkpoint is scored.
    - The number of classes is the data set's.
    """

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | nn.Module,
        decoder: dict[str, Any] | nn.Module,
        criterion: nn.Module | None = None,
        # single numbers are refused in one line, which the parser does not
        class_weights: Sequence[float] | float | None = None,
        protocol: protocols.ProtocolName = "frozen",
        seed: int = 0,
        roi_size: Sequence[int] | int = facts.CROP,
        sw_batch_size: int = 4,
        overlap: float | None = None,
        monitor_overlap: float | None = None,
        lr: float = 1e-3,
        lr_end: float = 1e-4,
        weight_decay: float = 0.01,
    ) -> None:
        """Initializes the module.

        Args:
            encoder: The backbone, or its `class_path` and `init_args`, from which each run
                builds one. It maps [B, 1, D, H, W] to a list of feature maps, fine to coarse.
            decoder: The decoder, or its `class_path` and `init_args`, from which each run
                builds one; an absent `out_channels` is the number of classes. For an encoder of the
                zoo whose maps are not a pyramid of six, the SwinUNETR decoder stands behind a
                convolution a map (`eva_coralbay.evaluation.pyramid_decoder`).
            criterion: The loss on logits [B, classes, D, H, W] and labels [B, 1, D, H, W].
                Dice without background plus cross-entropy if None.
            class_weights: The weight of each class in the default loss, background first.
            protocol: Decides what is trained and how it is scored.
            seed: The seed of run 0; run k has `seed` + k.
            roi_size: The size of a window in voxels, as (D, H, W).
            sw_batch_size: The number of windows that are computed at once.
            overlap: The overlap of two windows when scoring, as a share of the window; the
                protocol's if None.
            monitor_overlap: The same for the validation while fitting.
            lr: The learning rate at the start.
            lr_end: The learning rate that the cosine schedule ends with.
            weight_decay: The weight decay of AdamW.
        """
        if criterion is not None and class_weights is not None:
            raise EvaCoralbayError(
                "`class_weights` are of the default loss: give them to `criterion`."
            )
        if class_weights is not None:
            class_weights = errors.check_list(class_weights, "class_weights", "CLASS_WEIGHTS")
        rules = protocols.PROTOCOLS[protocol]
        if rules.mode != "online":
            raise EvaCoralbayError(
                f"A decoder is not trained by the protocol '{protocol}' (PROTOCOL): take the "
                "config of that protocol, such as `probe/btcv`."
            )
        super().__init__(
            protocol=protocol,
            seed=seed,
            lr=lr,
            lr_end=lr_end,
            weight_decay=weight_decay,
            encoder=encoder,
            decoder=decoder,  # type: ignore[reportArgumentType]  # built in `configure_model`
            criterion=criterion or _default_criterion(class_weights),
            lr_multiplier_encoder=1.0 if rules.trains_encoder else 0.0,
            save_decoder_only=not rules.trains_encoder,
            spatial_dims=3,
        )

        self.roi_size = grid_lib.check_window(roi_size)
        self._arguments = _plain(
            {
                "encoder": encoder,
                "decoder": decoder,
                "class_weights": class_weights,
                "protocol": protocol,
                "seed": seed,
                "roi_size": self.roi_size,
                "sw_batch_size": sw_batch_size,
                "overlap": overlap,
                "monitor_overlap": monitor_overlap,
                "lr": lr,
                "lr_end": lr_end,
                "weight_decay": weight_decay,
            }
        )
        self.class_weights = class_weights
        self.sw_batch_size = sw_batch_size
        self.overlap = rules.overlap if overlap is None else overlap
        self.monitor_overlap = rules.monitor_overlap if monitor_overlap is None else monitor_overlap
        errors.check_at_least(1, sw_batch_size, "sw_batch_size", "SW_BATCH_SIZE")
        _check_overlap("overlap", "SW_OVERLAP", self.overlap)
        _check_overlap("monitor_overlap", "SW_MONITOR_OVERLAP", self.monitor_overlap)
        self._scorer, self._monitor = (
            inferers.SlidingWindowInferer(
                roi_size=self.roi_size, sw_batch_size=sw_batch_size, overlap=share
            )
            for share in (self.overlap, self.monitor_overlap)
        )

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        return metrics_lib.MetricsSchema(
            train=eva_metrics.AverageLoss(), evaluation=metrics.CaseSegmentation()
        )

    @override
    def configure_model(self) -> None:
        if self._trainer is None:
            # eva calls this before the run is seeded, Lightning once more after
            return
        self.build_networks()
        if self.encoder_sha256 is None and isinstance(self.encoder, nn.Module):
            self.encoder_sha256 = run_module.encoder_sha256(self.encoder)
        self._freeze_encoder()
        self.train(self.training)
        self.check_roi()
        self._check_crops()

    def _restore_networks(self, checkpoint: dict[str, Any]) -> None:
        """Builds the networks of the run that a checkpoint is of, for use without a trainer."""
        state = checkpoint[run_module.STATE]
        self.classes, self.run_seed = state["classes"], state["run_seed"]
        self.build_networks()
        if self.save_decoder_only and isinstance(self.encoder, nn.Module):
            self.encoder_sha256 = run_module.encoder_sha256(self.encoder)
        self._freeze_encoder()
        self.eval()

    def build_networks(self) -> None:
        """Builds encoder and decoder, where they are specifications, with the seeds of the run.

        The classes must be known.
        """
        self.encoder = self._build(self.encoder, "encoder")
        self.decoder = self._build(self._complete(self.decoder), "decoder")

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._arguments is not None:
            # what Lightning builds a module from, so that `load_from_checkpoint` needs no arguments
            checkpoint["hyper_parameters"] = self._arguments

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is None and isinstance(self.decoder, dict):
            self._restore_networks(checkpoint)
        super().on_load_checkpoint(checkpoint)
        if self.save_decoder_only:
            # eva restores the encoder only, and a weighted criterion has tensors too
            checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}

    @override
    def train(self, mode: bool = True) -> "SegmentationModule":
        super().train(mode)
        if self.save_decoder_only and isinstance(self.encoder, nn.Module):
            self.encoder.eval()
        return self

    @override
    def training_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        data, targets, _ = INPUT_TENSOR_BATCH(*batch)
        logits = self._forward_networks(data)
        return {"loss": self.criterion(*label_maps.select_known(logits, targets))}

    @override
    def validation_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._segment(batch)

    @override
    def test_step(self, batch: INPUT_TENSOR_BATCH, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        return self._segment(batch)

    def _segment(self, batch: INPUT_TENSOR_BATCH) -> STEP_OUTPUT:
        """Segments whole scans window by window.

        Returns:
            The label maps [B, D, H, W], beside the targets and the metadata of the batch. When a
            checkpoint is scored, the metadata have a `NativeCase` of each case, if the data set
            knows the grid of its scans.
        """
        data, targets, metadata = INPUT_TENSOR_BATCH(*batch)
        is_monitoring = self.trainer.state.fn == states.TrainerFn.FITTING
        logits = self._slide(data, self._monitor if is_monitoring else self._scorer)
        if not is_monitoring and metadata is not None and "affine" in metadata:
            native = native_grid.restore_cases(
                logits, metadata, run_module.scored_dataset(self.trainer)
            )
            metadata = {**metadata, "native": native}
        return {
            "predictions": label_maps.argmax_labels(logits).to(data.device),
            "targets": targets,
            "metadata": metadata,
        }

    def compute_logits(self, data: torch.Tensor) -> torch.Tensor:
        """Segments whole scans window by window, as a checkpoint is scored.

        Args:
            data: The scans as the encoder takes them, of shape [B, 1, D, H, W].

        Returns:
            The logits, of shape [B, classes, D, H, W].
        """
        return self._slide(data, self._scorer)

    def _slide(self, data: torch.Tensor, inferer: inferers.SlidingWindowInferer) -> torch.Tensor:
        logits: Any = inferer(
            data, network=self._forward_networks, device=self._stitching_device(data)
        )
        return logits

    def _stitching_device(self, data: torch.Tensor) -> torch.device:
        """Returns where the logits of a scan are put together: on the CPU if they are large."""
        size = 4 * data[:, 0].numel() * len(self.classes)
        return torch.device("cpu") if size > _MAX_LOGITS_BYTES else data.device

    def _complete(self, decoder: Any) -> Any:
        """Returns the decoder's specification with the classes and the encoder's maps in it."""
        if not isinstance(decoder, dict):
            return decoder
        init_args = {"out_channels": len(self.classes), **decoder.get("init_args", {})}
        completed = {**decoder, "init_args": init_args}
        return pyramid_decoder.complete(completed, self.encoder, self.roi_size)

    def _check_crops(self) -> None:
        """Checks that the crops are as large as the windows.

        Raises:
            EvaCoralbayError: If not.
        """
        training = run_module.datasets(self.trainer).train
        crops = getattr(getattr(training, "transforms", None), "roi_size", None)
        if crops is not None and tuple(crops) != self.roi_size:
            raise EvaCoralbayError(
                f"The train transform's `roi_size` {tuple(crops)} differs from the module's "
                f"{self.roi_size}: set both to the same (ROI_SIZE sets both in our configs)."
            )

    def check_roi(self) -> None:
        """Checks the size of the windows before any training.

        Raises:
            EvaCoralbayError: If the decoder cannot take it.
        """
        valid = all(size % _ROI_MULTIPLE == 0 and size >= _ROI_MINIMUM for size in self.roi_size)
        if _is_swin_unetr(self.decoder) and not valid:
            raise EvaCoralbayError(
                f"`roi_size` {self.roi_size} does not fit the SwinUNETR decoder: each side must "
                f"be a multiple of {_ROI_MULTIPLE} and at least {_ROI_MINIMUM}, for example "
                "(64, 64, 64) or (96, 96, 96)."
            )


def _check_overlap(name: str, variable: str, share: float) -> None:
    """Checks an overlap, which MONAI does only as windows slide: perhaps after the training."""
    if not 0.0 <= share < 1.0:
        raise EvaCoralbayError(
            f"`{name}` ({variable}) must be a share of the window from 0 to below 1; got {share}."
        )


def _plain(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Returns arguments as values that a checkpoint may have, `None` if one is an object."""
    try:
        return json.loads(json.dumps(arguments))
    except TypeError:
        return None


def _is_swin_unetr(decoder: Any) -> bool:
    """Whether a decoder, or the one that a specification names, is SwinUNETR's."""
    if isinstance(decoder, dict):
        name = str(decoder.get("class_path")).rpartition(".")[2]
        return name in {kind.__name__ for kind in SWIN_UNETR_DECODERS}
    return isinstance(decoder, SWIN_UNETR_DECODERS)


def _default_criterion(class_weights: Sequence[float] | None) -> nn.Module:
    return eva_losses.DiceCELoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        weight=None if class_weights is None else list(class_weights),
    )
