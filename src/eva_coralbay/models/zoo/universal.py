"""The CLIP-Driven Universal Model: organs and tumors of many data sets, labels embedded by text.

https://arxiv.org/abs/2301.00785
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry, Overlap, Scans

_CODE = (
    "https://github.com/ljwztc/CLIP-Driven-Universal-Model/blob/"
    "43c12399cc98a40f447342a8dc2cecae5edae84c"
)

_SCANS = (
    Scans("BTCV", 37, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"),
    Scans(
        "Pancreas-CT", 27, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"
    ),
    Scans("CHAOS (CT)", 14, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"),
    Scans("LiTS", 95, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"),
    Scans("KiTS21", 204, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"),
    Scans("WORD", 80, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"),
    Scans(
        "AbdomenCT-1K", 706, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"
    ),
    Scans(
        "AMOS22 (CT)", 145, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"
    ),
    Scans("CT-ORG", 94, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt"),
    Scans(
        "AbdomenCT-12organ",
        43,
        "labeled",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Scans(
        "MSD Task03 Liver", 105, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt"
    ),
    Scans(
        "MSD Task06 Lung", 51, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt"
    ),
    Scans(
        "MSD Task07 Pancreas",
        225,
        "labeled",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Scans(
        "MSD Task08 HepaticVessel",
        242,
        "labeled",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Scans(
        "MSD Task09 Spleen", 33, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt"
    ),
    Scans(
        "MSD Task10 Colon", 101, "labeled", f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt"
    ),
)
"""What the encoders were pre-trained on."""

_OVERLAPS = (
    Overlap(
        "test",
        ("btcv",),
        "8 of the 9 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "test",
        ("lits17",),
        "19 of the 26 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "test",
        ("msd_task07_pancreas",),
        "48 of the 56 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Overlap(
        "unknown",
        ("flare22",),
        "It is not in the lists by name; whether its scans are in AbdomenCT-1K under other "
        "names is not published.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "test",
        ("kits23",),
        "36 of the 98 scored cases are in its training list, with labels (as KiTS21).",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "labeled-train",
        ("word",),
        "80 cases of training and validation are in its training list, no scored one.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "labeled-train",
        ("amos22",),
        "145 cases of training and validation are in its training list, no scored one.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "unknown",
        ("openkbp",),
        "Whether its patients are among the scans of the pre-training was not looked up.",
    ),
    Overlap(
        "test",
        ("chaos",),
        "4 of the 6 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
    Overlap(
        "none",
        (
            "totalsegmentator",
            "nodule_mnist_3d",
            "luna25",
            "cc_ccii",
        ),
        "It is not among the data sets of its training.",
        "https://github.com/ljwztc/CLIP-Driven-Universal-Model#dataset",
    ),
    Overlap(
        "test",
        ("msd_task03_liver",),
        "22 of the 26 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Overlap(
        "test",
        ("msd_task06_lung",),
        "15 of the 19 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Overlap(
        "test",
        ("msd_task08_hepatic_vessel",),
        "46 of the 61 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Overlap(
        "test",
        ("msd_task09_spleen",),
        "9 of the 12 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Overlap(
        "test",
        ("msd_task10_colon",),
        "19 of the 25 scored cases are in its training list, with labels.",
        f"{_CODE}/dataset/dataset_list/PAOT_10_inner_train.txt",
    ),
    Overlap(
        "labeled-train",
        ("organ_mnist_3d",),
        "Made from LiTS, of which 95 training scans are in its list; whether scored scans are "
        "in AbdomenCT-1K under other names is not published.",
        f"{_CODE}/dataset/dataset_list/PAOT_123457891213_train.txt",
    ),
)
"""Which of our tasks that overlaps with."""

_NOTES = (
    "The authors state 62.19 M parameters for the network with its decoder; the encoder's "
    "number is not published.",
    "The overlap is by case id of the default training lists of the authors' code against the "
    "split that is ranked here; the encoder had started from self-supervised weights of others.",
)

"""What a reader of the card should know."""

ENTRIES = (
    Entry(
        name="radiology/universal_swinunetr",
        title="CLIP-driven Universal Model, SwinUNETR",
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
        license="CC-BY-NC-ND-4.0",
        pretraining="Twelve public CT data sets with labels of organs and tumors: BTCV, CHAOS, "
        "LiTS, KiTS, WORD, AMOS, six tasks of the Decathlon and others",
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_NOTES,
        sources={
            "paper": "https://arxiv.org/abs/2301.00785",
            "weights": f"{_CODE}/README.md",
            "md5": "the class of this name in kaiko-eva 0.4.5",
            "license": f"{_CODE}/LICENSE",
            "architecture": f"{_CODE}/model/SwinUNETR.py",
            "patch merging": "a copy of MONAI's layer from before 1.5.0, in model/SwinUNETR.py",
            "preprocessing": f"{_CODE}/train.py#L239, dataset/dataloader.py#L231",
            "pretraining": f"{_CODE}/README.md",
        },
    ),
)
"""The SwinUNETR encoder."""
