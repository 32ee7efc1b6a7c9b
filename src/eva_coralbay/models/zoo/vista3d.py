"""VISTA3D: segmentation of 127 structures by classes and points.

https://arxiv.org/abs/2406.05285
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import EVERY_TASK, Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = "https://github.com/Project-MONAI/VISTA/blob/f73d7c20a73b5e6371f2879e38919d71fee34cf8"

ENTRIES = (
    Entry(
        name="radiology/vista3d",
        title="VISTA3D",
        network="eva_coralbay.models.networks.segresnet.SegResNetDSEncoder",
        arguments={"init_filters": 48, "blocks_down": (1, 2, 2, 4, 4), "norm": "instance"},
        weights="nvidia/NV-Segment-CT#vista3d_pretrained_model/model_monai1.3.pt",
        keys=KeyLayout(prefix="image_encoder.encoder.", beside=r"(?!image_encoder\.encoder\.)"),
        # the original clips before it resamples, and so differs at edges beyond the window: by
        # 4e-4 in the mean over a scan
        preprocessing=Preprocessing.of_window(
            -963.8247715525971,
            1053.678477684517,
            spacing=(1.5, 1.5, 1.5),
            orientation="RAS",
            window=(128, 128, 128),
        ),
        parameters=174_951_120,
        embedding_dim=768,
        maps=tuple(FeatureMap.of_stride(48 * 2**level, 2**level) for level in range(5)),
        license="NVIDIA-Open-Model-License",
        pretraining="11,454 CT volumes of public data sets, with labels of 127 structures",
        scans=(
            Scans(
                "Public CT data sets of organs and tumors",
                11_454,
                "labeled",
                "https://arxiv.org/abs/2406.05285",
            ),
        ),
        overlaps=(
            Overlap(
                "unknown",
                EVERY_TASK,
                "Its public data sets have not been matched with the cases of this task.",
                "https://arxiv.org/abs/2406.05285",
            ),
        ),
        sources={
            "weights": f"{_CODE}/vista3d/configs/infer.yaml",
            "license": f"{_CODE}/vista3d/README.md",
            "architecture": "monai.networks.nets.vista3d.vista3d132",
            "preprocessing": f"{_CODE}/vista3d/configs/infer.yaml",
            "pretraining": "https://arxiv.org/abs/2406.05285",
        },
    ),
)
"""The image encoder."""
