"""The environment variables of eva's own configs that those of this package do not read.

Whoever sets them expects an effect, so an evaluation does not start as if they were not there.
"""

from collections.abc import Mapping

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


def check(environment: Mapping[str, str]) -> None:
    """Checks that no variable is set that would have no effect.

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
