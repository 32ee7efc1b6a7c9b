"""What a run of `eva fit` has trained, ready to segment other scans."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import torch

from eva_coralbay import _hashes
from eva_coralbay.data import transforms
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import native_input, segmentation
from eva_coralbay.evaluation.probe import classifier_file
from eva_coralbay.inference import devices
from eva_coralbay.models import registry
from eva_coralbay.results import run_config
from eva_coralbay.tasks import protocols

Selection = Literal["last", "best"]
"""Which checkpoint of a run: that of the last step, or the best on val."""

_CONFIG = "config.yaml"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network or a probe, with what it takes of a scan."""

    module: Any
    """The module, in eval mode: its `compute_logits` maps [1, 1, D, H, W] to logits."""

    transform: transforms.EvalTransform
    """Prepares a scan as for the scoring of the run."""

    classes: tuple[str, ...]
    """The names of the label values, the background first."""

    path: pathlib.Path
    """The file of what was trained."""

    sha256: str
    """The SHA-256 of that file."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.module.device


def load(run: pathlib.Path, *, selection: Selection | None = None, device: str = "cpu") -> Trained:
    """Loads what a run has trained; nothing in its files is executed but the classes they name.

    Args:
        run: The folder of the run, `<logs>/<session>/run_<k>`.
        selection: Which checkpoint; the one that the run is scored by if None. A probe has one.
        device: Where to compute, as PyTorch names devices.

    Raises:
        EvaCoralbayError: If the folder is not a finished run of a segmentation, or the weights of
            its encoder are not found or differ.
    """
    devices.check(device)
    config = _read_config(run)
    registry.register_backbones()
    data = run_config.settings(config)["data"].get("init_args", {})
    given = {name: data[name] for name in ("spacing", "hu_window") if data.get(name) is not None}
    selection = selection or _scored_checkpoint(config)
    probe, checkpoint = run / classifier_file.NAME, run / "checkpoints" / f"{selection}.ckpt"
    if probe.exists():
        path, module = probe, classifier_file.read(probe)
    elif checkpoint.exists():
        path, module = checkpoint, _load_checkpoint(checkpoint)
    else:
        raise EvaCoralbayError(
            f"'{run}' has neither '{classifier_file.NAME}' nor 'checkpoints/{selection}.ckpt'. "
            "Name the folder of a finished run of a segmentation, `<logs>/<session>/run_<k>`; "
            "probes of older versions have to be run again."
        )
    own = module.own_input
    if own is not None:
        given["hu_window"] = native_input.hu_window(own)
        given |= {} if own.spacing is None else {"spacing": own.to_scan_order(own.spacing)}
    transform = transforms.EvalTransform(**given)
    return Trained(
        module.to(device).eval(), transform, tuple(module.classes), path, _hashes.hash_file(path)
    )


def _read_config(run: pathlib.Path) -> dict[str, Any]:
    path = run / _CONFIG
    if not path.exists():
        runs = sorted(str(found.parent) for found in run.glob(f"**/run_*/{_CONFIG}"))
        hint = f" Did you mean '{runs[-1]}'?" if runs else ""
        raise EvaCoralbayError(f"'{run}' is not a folder of a run: it has no {_CONFIG}.{hint}")
    return run_config.read(path)


def _scored_checkpoint(config: Mapping[str, Any]) -> Selection:
    """Returns which checkpoint counts by the protocol of a run."""
    trainer = config.get("trainer", {}).get("init_args", {})
    protocol = protocols.PROTOCOLS.get(str(trainer.get("protocol")))
    return "last" if protocol is None else protocol.checkpoint


def _load_checkpoint(path: pathlib.Path) -> segmentation.SegmentationModule:
    try:
        return segmentation.SegmentationModule.load_from_checkpoint(
            path, map_location="cpu", weights_only=True
        )
    except EvaCoralbayError:
        raise
    except Exception as error:  # Lightning and PyTorch raise almost anything for other checkpoints
        raise EvaCoralbayError(
            f"'{path}' is not a checkpoint of a segmentation that can be loaded without its config "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]})."
        ) from error
