"""Environment variables that have no effect: those of eva's own configs, and misspelled ones.

Whoever sets them expects an effect, so an evaluation does not start as if they were not there.
"""

import difflib
from collections.abc import Mapping

from loguru import logger

from eva_coralbay.errors import EvaCoralbayError

_BOTH_SAVED = "the best and the last checkpoint are saved, and PROTOCOL decides which one counts"

_WINDOW = "set HU_WINDOW, as in HU_WINDOW='[-175, 250]'"

_SPACING = "set SPACING in mm as (D, H, W), as in SPACING='[1.5, 1.5, 1.5]'"

_NO_RESIZING = "set ROI_SIZE for the size of crops, or SIZE_MM for that of a volume"

INSTEAD: Mapping[str, str] = {
    "CHECKPOINT_TYPE": _BOTH_SAVED,
    "IMG_DIM": _NO_RESIZING,
    "MAX_EPOCHS": "set MAX_STEPS",
    "MODEL_EXTRA_KWARGS": "set IN_FEATURES, OUT_INDICES and CHECKPOINT",
    "MONITOR_METRIC_MODE": "set MONITOR_METRIC to a metric of which higher is better",
    "NORMALIZE_MEAN": _WINDOW,
    "NORMALIZE_STD": _WINDOW,
    "PATIENCE": "set MAX_STEPS, as no training is stopped early",
    "RESIZE_DIM": _NO_RESIZING,
    "SAVE_LAST": _BOTH_SAVED,
    "SCALE_INTENSITY_MAX": _WINDOW,
    "SCALE_INTENSITY_MIN": _WINDOW,
    "SPACING_H": _SPACING,
    "SPACING_T": _SPACING,
    "SPACING_W": _SPACING,
}
"""What to do in place of setting each variable.

They are all that eva's vision configs name (`configs/vision/` of kaiko-ai/eva, April 2026) and ours
do not read, but for those of its tests and of pathology slides.
"""


READ = (
    "ACCELERATOR", "ACCUMULATE_GRAD_BATCHES", "ACTIVATION_CHECKPOINTING", "AUGMENTATION_WARMUP",
    "BALANCE", "BATCH_SIZE", "CENTER_MOMENTUM", "CENTRE_MOMENTUM", "CHANNEL_PROJECTION_DIMS",
    "CHECKPOINT", "CHECKPOINT_INTERVAL", "CLASS_WEIGHTS", "CLIP_BY", "CLIP_NORM",
    "DATA_ROOT", "DOWNLOAD_DATA", "DROP_PATH_RATE", "DRY_RUN", "EMBEDDINGS_ROOT", "FOLD",
    "FREEZE_PROTOTYPES_STEPS", "GLOBAL_EDGE", "GLOBAL_SIZE", "HEAD_DIMS", "HELD_OUT", "HU_WINDOW",
    "INIT_FROM", "IN_FEATURES", "KEEP_CHECKPOINTS", "KOLEO_WEIGHT", "LOCAL_EDGE", "LOCAL_SIZE",
    "LOGGERS", "LOG_EVERY_N_STEPS", "LR_VALUE", "LR_VALUE_END", "MAPS", "MASKING",
    "MAX_GLOBAL_OVERLAP", "MAX_ROTATION", "MAX_STEPS", "MODEL_NAME", "MOMENTUM", "MOMENTUM_BATCH",
    "MONITOR_INTERVAL", "MONITOR_METRIC", "NUM_DEVICES", "NUM_LOCALS", "NUM_NODES", "NUM_PROBES",
    "NUM_PROTOTYPES", "N_DATA_WORKERS", "N_RUNS", "OUTPUT_ROOT", "OUT_INDICES", "PRECISION",
    "PREDICT_BATCH_SIZE", "PREPARED", "PREPARED_ROOT", "PROTOCOL", "QUEUE_SIZE", "REGION_SIZE",
    "ROBUSTNESS", "ROI_SIZE", "SAMPLE_BATCH_SIZE", "SAMPLE_CLASS_RATIOS", "SCALES", "SEED",
    "SIZE_MM", "SPACING", "SPLIT_SCHEME", "STORE", "STRATEGY", "SW_BATCH_SIZE",
    "SW_MONITOR_OVERLAP", "SW_OVERLAP", "TASK", "TEACHER_TEMPERATURE", "TQDM_REFRESH_RATE",
    "UNCHECKED_CASES", "VAL_CHECK_INTERVAL", "WARM_HEADS_STEPS", "WEIGHT_DECAY",
)  # fmt: skip
"""The variables that the configs of this package read."""

_SIMILAR = 0.88
"""From which similarity on (of `difflib`) a name is taken for another one that is misspelled."""


def check(environment: Mapping[str, str]) -> None:
    """Checks that no variable is set that would have no effect.

    A name that is nearly that of a variable which is read, such as HU_WINDOWS, is a warning only:
    it may belong to another program.

    Args:
        environment: The environment variables.

    Raises:
        EvaCoralbayError: If some are. It says what to set instead.
    """
    found = [f"{name}: {INSTEAD[name]}" for name in sorted(INSTEAD) if environment.get(name)]
    if found:
        raise EvaCoralbayError(
            "These environment variables are of eva's own configs and have no effect here. Unset "
            "them, and\n  - " + "\n  - ".join(found)
        )
    for name in sorted(set(environment) - set(READ)):
        meant = difflib.get_close_matches(name.upper(), READ, n=1, cutoff=_SIMILAR)
        if meant and environment[name]:
            logger.warning(
                f"The environment variable {name} has no effect here. Is {meant[0]} meant?"
            )
