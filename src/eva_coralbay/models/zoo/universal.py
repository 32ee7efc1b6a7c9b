"""The CLIP-Driven Universal Model: organs and tumors of many data sets, labels embedded by text.

https://arxiv.org/abs/2301.00785
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry

_CODE = (
    "https://github.com/ljwztc/CLIP-Driven-Universal-Model/blob/"
    "43c12399cc98a40f447342a8dc2cecae5edae84c"
)

ENTRIES = (
    Entry(
        name="radiology/universal_swinunetr",
        title="Universal Model (SwinUNETR)",
        network=swin_unetr.NETWORK,
        arguments=swin_unetr.arguments(48, use_v2=False),
        # the repository's commits are not known here: the hash below pins the file
        weights="ljwztc/CLIP-Driven-Universal-Model#clip_driven_universal_swin_unetr.pth",
        md5="1ad7a68e904cee85141b05c6bf646ace",
        preprocessing=Preprocessing.of_window(
            -175.0, 250.0, spacing=(1.5, 1.5, 1.5), orientation="RAS", window=(96, 96, 96)
        ),
        parameters=42_588_786,
        embedding_dim=swin_unetr.embedding_dim(48),
        maps=swin_unetr.maps(48),
        license="CC BY-NC-ND 4.0",
        pretraining="Twelve public CT data sets with labels of organs and tumors: BTCV, CHAOS, "
        "LiTS, KiTS, WORD, AMOS, six tasks of the Decathlon and others",
        pretraining_tasks=(
            "amos22", "btcv", "kits23", "lits17", "msd_task03_liver", "msd_task06_lung",
            "msd_task07_pancreas", "msd_task08_hepatic_vessel", "msd_task09_spleen",
            "msd_task10_colon", "word",
        ),
        sources={
            "weights": f"{_CODE}/README.md",
            "md5": "the class of this name in kaiko-eva 0.4.5",
            "license": f"{_CODE}/LICENSE",
            "architecture": f"{_CODE}/model/SwinUNETR.py",
            "patch merging": "a copy of MONAI's layer from before 1.5.0, in model/SwinUNETR.py",
            "preprocessing": f"{_CODE}/train.py#L239, dataset/dataloader.py#L231",
            "pretraining": f"{_CODE}/README.md",
        },
    ),
)  # fmt: skip
"""The SwinUNETR encoder."""
