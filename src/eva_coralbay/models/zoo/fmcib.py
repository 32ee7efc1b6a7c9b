"""FMCIB: contrastive self-supervision on crops around lesions of DeepLesion.

Pai et al., "Foundation model for cancer imaging biomarkers", Nature Machine Intelligence 2024.
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import EVERY_TASK, Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = (
    "https://github.com/AIM-Harvard/foundation-cancer-image-biomarker/blob/"
    "1f1c0c8725c110c9c70cb466467a55e3160760c9"
)

_MAPS = ((128, 2), (512, 4), (1024, 8), (2048, 16), (4096, 32))

ENTRIES = (
    Entry(
        name="radiology/fmcib",
        title="FMCIB",
        network="eva_coralbay.models.networks.resnet.ResNet50",
        arguments={"widen_factor": 2.0},
        weights="https://zenodo.org/records/10528450/files/model_weights.torch",
        keys=KeyLayout(nest=("trunk_state_dict",), beside=r"fc\."),
        preprocessing=Preprocessing(
            spacing=(1.0, 1.0, 1.0),
            # the code turns LPS arrays about, (0, 3, 2, 1), before the network
            orientation="SPL",
            hu_clip=None,
            hu_offset=-1024.0,
            hu_scale=3072.0,
            window=(50, 50, 50),
        ),
        parameters=184_477_824,
        embedding_dim=4096,
        maps=tuple(FeatureMap.of_stride(channels, stride) for channels, stride in _MAPS),
        license="CC-BY-4.0",
        pretraining="11,467 lesions of DeepLesion, without labels",
        scans=(
            Scans(
                "DeepLesion (lesions)",
                11_467,
                "unlabeled",
                "https://aim.hms.harvard.edu/foundation-cancer-image-biomarker",
            ),
        ),
        overlaps=(
            Overlap(
                "none",
                EVERY_TASK,
                "It is pre-trained on DeepLesion alone, which no task is made of.",
                "https://aim.hms.harvard.edu/foundation-cancer-image-biomarker",
            ),
        ),
        sources={
            "weights": f"{_CODE}/fmcib/models/__init__.py",
            "license": "https://zenodo.org/records/10528450",
            "architecture": f"{_CODE}/fmcib/models/__init__.py",
            "preprocessing": f"{_CODE}/fmcib/preprocessing/__init__.py",
            "pretraining": "https://aim.hms.harvard.edu/foundation-cancer-image-biomarker",
        },
    ),
)
"""The encoder of lesions, whose input is a crop of 50 mm around one."""
