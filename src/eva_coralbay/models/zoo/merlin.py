"""Merlin: abdominal CT aligned with radiology reports and diagnosis codes.

Blankemeier et al., "Merlin: a computed tomography vision-language foundation model and dataset",
Nature 2026, https://arxiv.org/abs/2406.06512.
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import EVERY_TASK, Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = "https://github.com/StanfordMIMI/Merlin/blob/2489a96bab716b6b27e3e693e2e9e9a1587135a5"

_PREFIX = "encode_image.i3_resnet."

_MAPS = (
    (64, (1, 2, 2)), (256, (2, 4, 4)), (512, (4, 8, 8)), (1024, (8, 16, 16)), (2048, (16, 32, 32)),
)  # fmt: skip

ENTRIES = (
    Entry(
        name="radiology/merlin",
        title="Merlin (inflated ResNet-152)",
        network="eva_coralbay.models.networks.inflated_resnet.InflatedResNet",
        arguments={},
        weights="stanfordmimi/Merlin"
        "#i3_resnet_clinical_longformer_best_clip_04-02-2024_23-21-36_epoch_99.pt",
        keys=KeyLayout(
            prefix=_PREFIX,
            beside=r"encode_text\.|logit_scale$|"
            r"encode_image\.i3_resnet\.(classifier|contrastive_head)\.",
        ),
        preprocessing=Preprocessing.of_window(
            -1000.0,
            1000.0,
            # the code turns RAS arrays about, (2, 0, 1), in the network
            spacing=(3.0, 1.5, 1.5),
            orientation="SRA",
            window=(160, 224, 224),
        ),
        parameters=117_366_208,
        embedding_dim=2048,
        maps=tuple(FeatureMap(channels, stride) for channels, stride in _MAPS),
        license="MIT",
        pretraining="15,331 abdominal CT scans of one hospital, with their reports and codes",
        scans=(
            Scans(
                "Abdominal CT of Stanford, with reports and codes",
                15_331,
                "labeled",
                "https://arxiv.org/abs/2406.06512",
            ),
        ),
        overlaps=(
            Overlap(
                "unknown",
                EVERY_TASK,
                "The scans of its hospital have not been matched with the cases of this task.",
                "https://arxiv.org/abs/2406.06512",
            ),
        ),
        sources={
            "paper": "https://arxiv.org/abs/2406.06512",
            "weights": f"{_CODE}/merlin/models/load.py",
            "license": f"{_CODE}/LICENSE (of the repository; no other one is stated there)",
            "architecture": f"{_CODE}/merlin/models/i3res.py, merlin/models/build.py",
            "preprocessing": f"{_CODE}/merlin/data/monai_transforms.py",
            "pretraining": "https://arxiv.org/abs/2406.06512",
        },
    ),
)
"""The image encoder."""
