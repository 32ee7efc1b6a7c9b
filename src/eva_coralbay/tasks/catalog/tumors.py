"""Data sets of tumors that are not part of the Medical Segmentation Decathlon."""

from eva_coralbay.tasks.catalog import _common
from eva_coralbay.tasks.facts import BACKGROUND, SOFT_TISSUE_HU, Resource, Task

LITS17 = Task(
    id="lits17",
    title="LiTS17",
    kind="segmentation",
    # the label values of the challenge (https://arxiv.org/abs/1901.04056)
    labels=(BACKGROUND, "liver", "tumor"),
    dataset="eva_coralbay.data.datasets.LiTS17",
    published_cases=131,
    license=_common.CC_BY_NC_ND,
    homepage="https://competitions.codalab.org/competitions/17094",
    access="account at codalab.org",
    how_to_get=(
        "Register at https://competitions.codalab.org/competitions/17094, download "
        "Training_Batch1.zip and Training_Batch2.zip, and unpack both into the root."
    ),
    steps=30_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    # of the Decathlon, which has the same scans
    nsd_tolerance=7.0,
    lesion_classes=("tumor",),
    # the Decathlon's Task03 is made of the scans of LiTS17 (https://arxiv.org/abs/1902.09063)
    shares_scans_with=("msd_task03_liver",),
)


_KITS23_NUMBERS = (*range(300), *range(400, 589))
"""The numbers of the public cases (`kits23/__init__.py` of the challenge's repository)."""

_KITS23_IMAGES = (
    "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images"
)
"""Where the authors keep the scans."""

_KITS23_LABELS = "https://raw.githubusercontent.com/neheller/kits23/main/dataset"
"""Where the authors keep the label maps."""


def _kits23_resources() -> tuple[Resource, ...]:
    """Returns the scan and the label map of each case."""
    cases = [f"case_{number:05d}" for number in _KITS23_NUMBERS]
    images = (
        Resource(f"{_KITS23_IMAGES}/{case}.nii.gz", f"{case}/imaging.nii.gz") for case in cases
    )
    labels = (
        Resource(f"{_KITS23_LABELS}/{case}/segmentation.nii.gz", f"{case}/segmentation.nii.gz")
        for case in cases
    )
    return (*images, *labels)


KITS23 = Task(
    id="kits23",
    title="KiTS23",
    kind="segmentation",
    # https://github.com/neheller/kits23/blob/main/kits23/configuration/labels.py
    labels=(BACKGROUND, "kidney", "tumor", "cyst"),
    dataset="eva_coralbay.data.datasets.KiTS23",
    published_cases=489,
    license=_common.CC_BY_NC_SA,
    homepage="https://kits-challenge.org/kits23/",
    how_to_get=(
        "Set `download`, or clone https://github.com/neheller/kits23, run its "
        "`kits23_download_data`, and take its folder dataset/ as the root."
    ),
    resources=_kits23_resources(),
    steps=30_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    # those of the challenge for kidney and masses, masses, and tumors
    # (HEC_SD_TOLERANCES_MM in https://github.com/neheller/kits23, configuration/labels.py)
    nsd_tolerance={
        "kidney": 1.0330772532390826,
        "tumor": 1.1498198361434828,
        "cyst": 1.1328796488598762,
    },
    lesion_classes=("tumor", "cyst"),
)
