"""Exports the teacher's encoder of a checkpoint, with a model card, and proves that it loads.

<folder>/
    config.json         architecture, preprocessing, versions, how it was trained
    model.safetensors   the weights
    README.md           the model card
"""

import itertools
import json
import pathlib
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import torch
import transformers
from eva.vision import models as eva_models

from eva_coralbay import _atomic_files, _messages
from eva_coralbay.data import grid as grid_lib
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import (
    automodel,  # noqa: F401  # makes AutoModel know the encoder
    checkpoints,
    preprocessing,
    registry,
    zoo,
)
from eva_coralbay.models import encoder as encoder_lib
from eva_coralbay.pretraining import checkpoint_files, networks, provenance
from eva_coralbay.tasks import facts

_TEACHER = "teacher.encoder."
"""What the keys of the teacher's encoder begin with."""

_DISTILLED = {
    "multi": "the concatenated embedding of all scales",
    "last": "the embedding of the last stage alone",
}
"""What was distilled, in words."""

_PROOF_SIZE = 40
"""The edge in voxels of the volume that the loaded encoders are compared on."""


def export(checkpoint_path: str, folder: str) -> None:
    """Exports the teacher's encoder.

    Args:
        checkpoint_path: A checkpoint of `pretrain fit`.
        folder: The folder to write, which must not be there or be empty.

    Raises:
        EvaCoralbayError: If the checkpoint is none, or the folder holds something.
        CheckpointError: If what was written does not load.
    """
    content = checkpoint_files.read(checkpoint_path)
    try:
        encoder = _build_encoder(content["state_dict"], content["coralbay"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise checkpoints.CheckpointError(
            f"'{checkpoint_path}' does not hold the encoder that it states: it was changed, or "
            "written by another version. Take another checkpoint of the folder."
        ) from error
    write(encoder, {**content["coralbay"], "step": content["global_step"]}, folder)


def write(encoder: encoder_lib.CoralBayEncoder, training: Mapping[str, Any], folder: str) -> None:
    """Writes an encoder completely or not at all, and checks that it loads.

    Args:
        encoder: The encoder.
        training: What `Distillation.describe` says, and the `step`.
        folder: The folder to write, which must not be there or be empty.

    Raises:
        EvaCoralbayError: If the folder holds something.
        CheckpointError: If what was written does not load.
    """
    target = pathlib.Path(folder)
    if target.exists() and any(target.iterdir()):
        raise EvaCoralbayError(f"'{folder}' is not empty: choose another folder, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    _atomic_files.remove_leftovers(target.parent)
    with _atomic_files.temporary_folder(target) as written:
        encoder.save_pretrained(
            written,
            preprocessing=preprocessing.Preprocessing.of_window(
                *facts.SOFT_TISSUE_HU,
                spacing=tuple(training["spacing"]),
                orientation=grid_lib.ORIENTATION,
            ),
            training={**training, "config": json.loads(training["config"])},
        )
        card = _draw_card(encoder, training, name=target.name)
        _atomic_files.write_atomically(written / "README.md", card.encode())
        prove(encoder, str(written))
        if target.exists():
            target.rmdir()
        written.replace(target)


def prove(encoder: encoder_lib.CoralBayEncoder, folder: str) -> None:
    """Loads an export in all ways, and compares what the encoders compute.

    Args:
        encoder: The encoder that was exported.
        folder: The export.

    Raises:
        CheckpointError: If an encoder does not load, or computes something else.
    """
    registry.register_backbones()
    kwargs = {"checkpoint": folder, "feature_size": encoder.feature_size}
    own = encoder_lib.CoralBayEncoder.from_pretrained(folder)
    evas = eva_models.ModelFromRegistry("radiology/coralbay", kwargs).eval()
    automodels = transformers.AutoModel.from_pretrained(folder).eval()  # nosec B615  # a local folder that was just written
    volume = torch.rand(1, encoder.in_channels, *(_PROOF_SIZE,) * 3)
    with torch.no_grad():
        expected = encoder.eval()(volume)
        computed = {
            "CoralBayEncoder": own(volume),
            "eva's ModelFromRegistry": evas(volume),
            "transformers' AutoModel": automodels(volume).pooler_output,
        }
    for name, embedding in computed.items():
        if not torch.equal(embedding, expected):
            raise checkpoints.CheckpointError(
                f"{folder}: {name} computes other embeddings than the encoder that was exported. "
                "Please report this, with the versions in its config.json."
            )


def _build_encoder(
    state_dict: Mapping[str, torch.Tensor], training: Mapping[str, Any]
) -> encoder_lib.CoralBayEncoder:
    """Builds the teacher's encoder."""
    encoder = encoder_lib.CoralBayEncoder(
        **training["encoder"], embeddings_type=networks.EMBEDDINGS[training["scales"]]
    )
    weights = {
        key.removeprefix(_TEACHER): value
        for key, value in state_dict.items()
        if key.startswith(_TEACHER)
    }
    encoder.load_state_dict(weights, strict=True)
    return encoder.eval()


def _draw_card(
    encoder: encoder_lib.CoralBayEncoder, training: Mapping[str, Any], *, name: str
) -> str:
    """Returns the model card."""
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    spacing = " x ".join(f"{value:g}" for value in training["spacing"])
    values = {
        "name": name,
        "parameters": _messages.parameters(parameters),
        "feature_size": encoder.feature_size,
        "embedding_dim": encoder.embedding_dim,
        "patch_merging": encoder.patch_merging,
        "spacing": spacing,
        "orientation": grid_lib.ORIENTATION,
        "lower": f"{facts.SOFT_TISSUE_HU[0]:g}",
        "upper": f"{facts.SOFT_TISSUE_HU[1]:g}",
        "distilled": _DISTILLED[training["scales"]],
        "config": json.dumps(json.loads(training["config"]), indent=2),
        "origin": _draw_origin(training),
        "phases": _draw_phases(training.get("phases", ())),
        "monitors": _draw_monitors(training["summary"]),
        "versions": ", ".join(f"{key} {value}" for key, value in training["versions"].items()),
        **{
            key: training[key]
            for key in ("num_scans", "manifest_sha256", "step", "steps", "batch_size")
        },
        "num_prototypes": training["num_prototypes"],
    }
    template = resources.files("eva_coralbay.pretraining").joinpath("model_card.md").read_text()
    return string.Template(template).substitute(values)


def _draw_monitors(summary: Mapping[str, float]) -> str:
    """Returns the last values of the monitors as the rows of a table."""
    return "\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(summary.items()))


def _draw_origin(training: Mapping[str, Any]) -> str:
    """Returns what is to be said of the weights that it started from; "" if they were random."""
    sha256 = training.get("init_from_sha256")
    if sha256 is None:
        return ""
    name = training.get("init_from")
    lines = [
        "",
        f"Student and teacher did not start from random weights, but from "
        f"{f'`{name}`' if name else 'a file'} (SHA-256 `{sha256}`). What these weights were "
        "trained on, and what their license says, counts for this encoder, too.",
    ]
    entry = zoo.ENTRIES.get(name or "")
    if entry is not None:
        tasks = entry.pretraining_tasks
        overlap = "not known" if tasks is None else ", ".join(tasks) or "none"
        lines += [
            "",
            f"- license: {entry.license or 'not known'}",
            f"- pre-trained on: {entry.pretraining or 'not known'}",
            f"- tasks of the leaderboard whose scans are known to be among these: {overlap}",
        ]
    return "\n".join([*lines, ""])


def _draw_phases(phases: Sequence[Mapping[str, Any]]) -> str:
    """Returns what is to be said of a training that went on in another way; "" if it did not."""
    if len(phases) < 2:
        return ""
    lines = [
        "",
        "The training was not of one piece: at these steps it went on in another way.",
        "",
        *(
            f"- from step {phase['from_step']}: {'; '.join(provenance.find_changes(before, phase))}"
            for before, phase in itertools.pairwise(phases)
        ),
        "",
    ]
    return "\n".join(lines)
