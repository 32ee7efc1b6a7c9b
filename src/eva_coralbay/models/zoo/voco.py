"""VoCo: volume contrast, self-supervision by the position of crops, in three sizes.

https://arxiv.org/abs/2410.09890
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry

_REVISION = "10e44c5194ce74e014556a1052e930d0a2aca53d"
"""The commit of the Hub repository that has all weights (2024-10-08)."""

_CODE = (
    "https://github.com/Luffy03/Large-Scale-Medical/blob/1ad538b8081c6f14fd7b3ace38664e7c6b9f0530"
)

_PREPROCESSING = Preprocessing.of_window(
    -175.0, 250.0, spacing=(1.5, 1.5, 1.5), orientation="RAS", window=(96, 96, 96)
)
"""That of the abdominal scans and of all downstream tasks; scans of the chest were trained on at
1.25 x 1.25 x 5 mm."""


def _entry(size: str, feature_size: int, *, parameters: int, sha256: str) -> Entry:
    return Entry(
        name=f"radiology/voco_{size.lower()}",
        title=f"VoCo-{size}",
        network=swin_unetr.NETWORK,
        arguments=swin_unetr.arguments(feature_size, use_v2=True),
        weights=f"Luffy503/VoCo@{_REVISION}#VoCo_{size}_SSL_head.pt",
        sha256=sha256,
        preprocessing=_PREPROCESSING,
        parameters=parameters,
        embedding_dim=swin_unetr.embedding_dim(feature_size),
        maps=swin_unetr.maps(feature_size),
        license="Apache-2.0",
        pretraining="PreCT-160K: 160,000 CT volumes of public data sets, without labels",
        pretraining_tasks=(
            "btcv", "kits23", "lits17", "msd_task03_liver", "msd_task07_pancreas",
            "nodule_mnist_3d", "totalsegmentator", "word",
        ),
        sources={
            "weights": "https://huggingface.co/Luffy503/VoCo",
            "sha256": f"https://huggingface.co/Luffy503/VoCo/blob/main/VoCo_{size}_SSL_head.pt",
            "license": "https://huggingface.co/Luffy503/VoCo (README.md)",
            "architecture": f"{_CODE}/Self-supervised/models/voco_head.py",
            "patch merging": "the repository's environment has MONAI 1.3.0, from before 1.5.0",
            "preprocessing": f"{_CODE}/Self-supervised/utils/data_trans.py#L65",
            "pretraining": f"{_CODE}/Self-supervised/jsons (btcv, dataset_kits, dataset_lits, "
            "dataset_panc, dataset_word, flare23, dataset_LUNA16_0, LIDC, "
            "Totalsegmentator_dataset)",
        },
    )  # fmt: skip


ENTRIES = (
    _entry(
        "B",
        48,
        parameters=53_164_146,
        sha256="06664b629e73a25aacfaf9e0dd3f2df36f93a9f60f0bf8cf4d8b5cc95cd01298",
    ),
    _entry(
        "L",
        96,
        parameters=211_999_362,
        sha256="47d3646523d93c42d6ed2ada3fc20735af5e414f940b10b910a38ac8db025aec",
    ),
    _entry(
        "H",
        192,
        parameters=847_276_194,
        sha256="a88216d079191bf7c81319ab468e0f45a0c2e7d3eb46f5964f34a3e1e6a6f4a3",
    ),
)
"""The three sizes."""
