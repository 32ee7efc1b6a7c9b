"""The CT tasks of the Medical Segmentation Decathlon (http://medicaldecathlon.com)."""

import functools

from eva_coralbay.tasks.catalog import _common
from eva_coralbay.tasks.facts import BACKGROUND, SOFT_TISSUE_HU, Resource, Task

_task = functools.partial(
    Task,
    kind="segmentation",
    license=_common.CC_BY_SA,
    homepage="http://medicaldecathlon.com",
    how_to_get=(
        "Set `download`, or download the archive of the task from http://medicaldecathlon.com and "
        "unpack it into the root."
    ),
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
)
"""Builds a task from what differs.

The label values are those of `dataset.json` in the archive. The tolerances of the normalized
surface Dice are known as those of the challenge (https://doi.org/10.1038/s41467-022-30695-9,
Methods); they were not verified in that text, and no code of the challenge that has them is public.

Tasks 7 to 10 are of patients of one hospital (Memorial Sloan Kettering Cancer Center,
https://arxiv.org/abs/1902.09063). Whether two tasks have scans in common is not published, and not
verified: they are taken as apart.
"""


def _archive(name: str, md5: str) -> tuple[Resource, ...]:
    """Returns the archive of a task at MONAI's mirror, which also publishes the checksums.

    They are in https://github.com/Project-MONAI/MONAI/blob/1.5.0/monai/apps/datasets.py.
    """
    url = f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{name}.tar"
    return (Resource(url, f"{name}.tar", f"md5:{md5}"),)


LIVER = _task(
    id="msd_task03_liver",
    title="MSD Task03 Liver",
    labels=(BACKGROUND, "liver", "tumor"),
    dataset="eva_coralbay.data.datasets.MSDLiver",
    published_cases=131,
    resources=_archive("Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397"),
    steps=30_000,
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=7.0,
    lesion_classes=("tumor",),
    shares_scans_with=("lits17",),
)

LUNG = _task(
    id="msd_task06_lung",
    title="MSD Task06 Lung",
    labels=(BACKGROUND, "tumor"),
    dataset="eva_coralbay.data.datasets.MSDLung",
    published_cases=63,
    resources=_archive("Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc"),
    steps=20_000,
    hu_window=_common.LUNG_HU,
    nsd_tolerance=2.0,
    lesion_classes=("tumor",),
)

PANCREAS = _task(
    id="msd_task07_pancreas",
    title="MSD Task07 Pancreas",
    labels=(BACKGROUND, "pancreas", "tumor"),
    dataset="eva_coralbay.data.datasets.MSDPancreas",
    published_cases=281,
    resources=_archive("Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4"),
    steps=30_000,
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=5.0,
    lesion_classes=("tumor",),
    # the labeled scans of FLARE22 are from this task; which of them is not published
    shares_scans_with=("flare22",),
)

HEPATIC_VESSEL = _task(
    id="msd_task08_hepatic_vessel",
    title="MSD Task08 HepaticVessel",
    labels=(BACKGROUND, "vessel", "tumor"),
    dataset="eva_coralbay.data.datasets.MSDHepaticVessel",
    published_cases=303,
    resources=_archive("Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c"),
    steps=30_000,
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=3.0,
    lesion_classes=("tumor",),
)

SPLEEN = _task(
    id="msd_task09_spleen",
    title="MSD Task09 Spleen",
    labels=(BACKGROUND, "spleen"),
    dataset="eva_coralbay.data.datasets.MSDSpleen",
    published_cases=41,
    resources=_archive("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e"),
    steps=20_000,
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=3.0,
)

COLON = _task(
    id="msd_task10_colon",
    title="MSD Task10 Colon",
    labels=(BACKGROUND, "tumor"),
    dataset="eva_coralbay.data.datasets.MSDColon",
    published_cases=126,
    resources=_archive("Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0"),
    steps=20_000,
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=4.0,
    lesion_classes=("tumor",),
)
