"""VoCo: volume contrast, self-supervision by the position of crops, in three sizes.

https://arxiv.org/abs/2410.09890
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry, Overlap, Scans

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


_SCANS = (
    Scans("BTCV", 30, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans("FLARE22", 50, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans("AMOS22 (CT)", 300, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans("WORD", 150, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans("FLARE23", 4000, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans(
        "AbdomenAtlas 1.0",
        5195,
        "unlabeled",
        f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py",
    ),
    Scans("DeepLesion", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans("PANORAMA", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_abdomen.py"),
    Scans("LiTS", 108, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_tumor.py"),
    Scans(
        "MSD Task07 Pancreas",
        281,
        "unlabeled",
        f"{_CODE}/Self-supervised/utils/data_utils_tumor.py",
    ),
    Scans("KiTS23", 489, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_tumor.py"),
    Scans("HealthyCT", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_tumor.py"),
    Scans("LUNA16", 843, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans("TCIA Covid-19", 722, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans("STOIC21", 2000, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans("LIDC-IDRI", 589, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans(
        "Stony Brook chest CT",
        None,
        "unlabeled",
        f"{_CODE}/Self-supervised/utils/data_utils_chest.py",
    ),
    Scans("MELA", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans("CT-RATE", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans("NLST", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_chest.py"),
    Scans("HNSCC", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_headneck.py"),
    Scans(
        "QIN-HEADNECK", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_headneck.py"
    ),
    Scans(
        "Head-Neck-PET-CT",
        None,
        "unlabeled",
        f"{_CODE}/Self-supervised/utils/data_utils_headneck.py",
    ),
    Scans("TCGA-HNSC", None, "unlabeled", f"{_CODE}/Self-supervised/utils/data_utils_headneck.py"),
    Scans(
        "TotalSegmentator",
        1203,
        "unlabeled",
        f"{_CODE}/Self-supervised/utils/data_utils_headneck.py",
    ),
    Scans(
        "CT Colonography",
        None,
        "unlabeled",
        f"{_CODE}/Self-supervised/utils/data_utils_headneck.py",
    ),
)
"""What the encoders were pre-trained on."""

_OVERLAPS = (
    Overlap(
        "test",
        ("btcv",),
        "All 9 scored cases and all others are in its lists, without labels.",
        f"{_CODE}/Self-supervised/jsons/btcv.json",
    ),
    Overlap(
        "test",
        (
            "lits17",
            "msd_task03_liver",
        ),
        "19 of the 26 scored cases are in its lists, without labels.",
        f"{_CODE}/Self-supervised/jsons/dataset_lits.json",
    ),
    Overlap(
        "test",
        ("msd_task07_pancreas",),
        "All 56 scored cases and all others are in its lists, without labels.",
        f"{_CODE}/Self-supervised/jsons/dataset_panc.json",
    ),
    Overlap(
        "test",
        ("flare22",),
        "All 15 scored cases and all others are in its lists, without labels.",
        f"{_CODE}/Downstream/monai/Flare22/dataset.json",
    ),
    Overlap(
        "test",
        ("kits23",),
        "All 98 scored cases and all others are in its lists, without labels.",
        f"{_CODE}/Self-supervised/jsons/dataset_kits.json",
    ),
    Overlap(
        "test",
        ("word",),
        "All 30 scored cases and all others are in its lists, without labels.",
        f"{_CODE}/Self-supervised/jsons/dataset_word.json",
    ),
    Overlap(
        "test",
        ("amos22",),
        "All 100 scored cases and all others are in its lists, without labels.",
        f"{_CODE}/Downstream/monai/Amos/dataset_CT.json",
    ),
    Overlap(
        "unknown",
        ("openkbp",),
        "Whether its patients are among the scans of the pre-training was not looked up.",
    ),
    Overlap(
        "unknown",
        (
            "chaos",
            "msd_task06_lung",
            "msd_task08_hepatic_vessel",
            "msd_task09_spleen",
            "msd_task10_colon",
        ),
        "Its lists name AbdomenAtlas 1.0, which draws on this data set, but not the cases of it.",
        "https://github.com/MrGiovanni/AbdomenAtlas/issues/2",
    ),
    Overlap(
        "test",
        ("totalsegmentator",),
        "65 of the 89 scored cases are in its list, without labels.",
        f"{_CODE}/Self-supervised/jsons/Totalsegmentator_dataset.json",
    ),
    Overlap(
        "unlabeled-train",
        ("organ_mnist_3d",),
        "Made from LiTS, of which 108 training scans are in its lists; scored cases cannot be "
        "ruled out, as it names other sets that hold LiTS.",
        f"{_CODE}/Self-supervised/jsons/dataset_lits.json",
    ),
    Overlap(
        "unknown",
        ("nodule_mnist_3d",),
        "Made from LIDC-IDRI, which is in its lists (as LIDC and LUNA16); which nodules are of "
        "these scans is not known.",
        f"{_CODE}/Self-supervised/utils/data_utils_chest.py",
    ),
    Overlap(
        "unknown",
        ("luna25",),
        "Made from NLST, which is in its lists; which scans of it is not known.",
        f"{_CODE}/Self-supervised/utils/data_utils_chest.py",
    ),
    Overlap(
        "none",
        ("cc_ccii",),
        "It is not among the data sets that are loaded.",
        f"{_CODE}/Self-supervised/utils/data_utils_chest.py",
    ),
)
"""Which of our tasks that overlaps with."""

_NOTES = (
    "The authors state 160 K scans in all (PreCT-160K); the sets are those that their "
    "pre-training code loads, the numbers those of its lists, of which some are not public.",
    "The overlap is by case id against the split that is ranked here. That code loads the "
    "validation lists of BTCV, FLARE22, AMOS22, KiTS23 and MSD pancreas too, and the test list "
    "of WORD; whether the published weights were trained by exactly it is not stated.",
)

"""What a reader of the card should know."""


def _entry(size: str, feature_size: int, *, parameters: int, sha256: str) -> Entry:
    return Entry(
        name=f"radiology/voco_{size.lower()}",
        title=f"VoCo-{size} (self-supervised)",
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
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_NOTES,
        sources={
            "paper": "https://arxiv.org/abs/2410.09890",
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
    )


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
