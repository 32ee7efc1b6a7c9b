"""VISTA3D: segmentation of 127 structures by classes and points.

https://arxiv.org/abs/2406.05285
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = "https://github.com/Project-MONAI/VISTA/blob/f73d7c20a73b5e6371f2879e38919d71fee34cf8"

_TRAINING = f"{_CODE}/vista3d/configs/train/hyper_parameters_stage1.yaml"
"""The configuration that names most data sets; later ones leave out unlabeled ones."""


def _list(name: str) -> str:
    """Returns the address of the list of a data set, by the name that it has there."""
    return f"{_CODE}/vista3d/data/jsons/{name}_5_folds.json"


_SCANS = (
    Scans("CTPelvic1K CLINIC", 75, "labeled", _list("CTPelvic1K-CLINIC")),
    Scans("AbdomenCT-1K", 640, "labeled", _list("AbdomenCT-1K")),
    Scans("AeroPath", 17, "labeled", _list("AeroPath")),
    Scans("AMOS22 (CT)", 192, "labeled", _list("AMOS22")),
    Scans("BTCV", 19, "labeled", _list("BTCV-Abdomen")),
    Scans("BTCV, cervix", 19, "labeled", _list("BTCV-Cervix")),
    Scans("CT-ORG", 87, "labeled", _list("CT-ORG")),
    Scans("FLARE22", 32, "labeled", _list("FLARE22")),
    Scans("Multi-organ Abdominal CT, BTCV", 30, "labeled", _list("Multi-organ-Abdominal-CT-btcv")),
    Scans("Multi-organ Abdominal CT, TCIA", 27, "labeled", _list("Multi-organ-Abdominal-CT-tcia")),
    Scans("Pancreas-CT", 51, "labeled", _list("Pancreas-CT")),
    Scans("MSD Task03 Liver", 84, "labeled", _list("Task03")),
    Scans("MSD Task06 Lung", 40, "labeled", _list("Task06")),
    Scans("MSD Task07 Pancreas", 180, "labeled", _list("Task07")),
    Scans("MSD Task08 HepaticVessel", 193, "labeled", _list("Task08")),
    Scans("MSD Task09 Spleen", 26, "labeled", _list("Task09")),
    Scans("MSD Task10 Colon", 80, "labeled", _list("Task10")),
    Scans("VerSe", 239, "labeled", _list("VerSe")),
    Scans("CRLM-CT", 126, "labeled", _list("CRLM-CT")),
    Scans("TotalSegmentator v2", 784, "labeled", _list("TotalSegmentatorV2")),
    Scans("NLST", 3113, "unlabeled", _list("NLST")),
    Scans("LIDC-IDRI", 422, "unlabeled", _list("LIDC")),
    Scans("Stony Brook CT", 1274, "unlabeled", _list("StonyBrook-CT")),
    Scans("TCIA Colon", 1440, "unlabeled", _list("TCIA_Colon")),
    Scans("TCIA Covid-19", 524, "unlabeled", _list("Covid19")),
)
"""What the encoder was pre-trained on."""

_EXACTLY = "whether exactly this list made the weights is not stated"
"""What is open of each list."""


def _listed(scored: str, tasks: tuple[str, ...], name: str, *, beside: str = "") -> Overlap:
    """Returns the overlap with a data set that is in the training with its labels.

    Args:
        scored: How many of how many scored cases are in the training list, as text.
        tasks: The ids of the tasks.
        name: The name that the list has there.
        beside: What else is known, a sentence.
    """
    note = f"{scored} scored cases are in its training list, with labels; {_EXACTLY}."
    return Overlap("test", tasks, f"{note} {beside}".rstrip(), _list(name))


_OVERLAPS = (
    _listed(
        "5 of the 9",
        ("btcv",),
        "BTCV-Abdomen",
        beside="By its number, one more is in that of another copy of BTCV (Multi-organ Abdominal "
        "CT).",
    ),
    _listed("11 of the 15", ("flare22",), "FLARE22"),
    _listed("68 of the 100", ("amos22",), "AMOS22"),
    _listed("58 of the 89", ("totalsegmentator",), "TotalSegmentatorV2"),
    _listed("19 of the 26", ("lits17", "msd_task03_liver"), "Task03"),
    _listed("13 of the 19", ("msd_task06_lung",), "Task06"),
    _listed("33 of the 56", ("msd_task07_pancreas",), "Task07"),
    _listed("40 of the 61", ("msd_task08_hepatic_vessel",), "Task08"),
    _listed("8 of the 12", ("msd_task09_spleen",), "Task09"),
    _listed("18 of the 25", ("msd_task10_colon",), "Task10"),
    Overlap(
        "labeled-train",
        ("organ_mnist_3d",),
        "Made from LiTS, of which 84 training scans are in its list (as MSD Task03); whether "
        f"scored scans are in AbdomenCT-1K under other names is not published, and {_EXACTLY}.",
        _list("Task03"),
    ),
    Overlap(
        "test",
        ("luna25",),
        "14 of the 424 scored patients are in its list of NLST, without labels, and 33 of the "
        "1,239 scored nodules are in scans of a year that is listed, too; "
        f"{_EXACTLY}.",
        _list("NLST"),
    ),
    Overlap(
        "unknown",
        ("nodule_mnist_3d",),
        "Made from LIDC-IDRI, of which 422 scans are in its list, without labels; which nodules "
        "are of these scans is not known.",
        _list("LIDC"),
    ),
    Overlap(
        "unknown",
        ("kits23",),
        "It is not in its training lists by name. AbdomenCT-1K, of which 640 cases are, is partly "
        "made of KiTS; its authors do not publish which cases are.",
        "https://github.com/JunMa11/AbdomenCT-1K/issues/11",
    ),
    Overlap(
        "none",
        ("word",),
        "It is not among the data sets of its training, but one of those that its repository "
        "keeps apart as external.",
        _TRAINING,
    ),
    Overlap(
        "none",
        ("chaos", "openkbp", "cc_ccii"),
        "It is not among the data sets of its training.",
        _TRAINING,
    ),
)
"""Which of our tasks that overlaps with."""

_NOTES = (
    "The authors state 11,454 volumes. The data sets are those of their training configurations, "
    "the numbers those of their lists without fold 0, which these keep for validation, and without "
    "the test parts.",
    "The overlap is by case id of these lists against the split that is ranked here. The authors "
    "call them the lists of all their training data, and state that the configurations may not "
    "fully reproduce the weights.",
)
"""What a reader of the card should know."""

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
        pretraining="11,454 CT volumes of public data sets, with labels of 127 structures; those "
        "of five data sets without",
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_NOTES,
        sources={
            "weights": f"{_CODE}/vista3d/configs/infer.yaml",
            "license": f"{_CODE}/vista3d/README.md",
            "architecture": "monai.networks.nets.vista3d.vista3d132",
            "preprocessing": f"{_CODE}/vista3d/configs/infer.yaml",
            "pretraining": f"https://arxiv.org/abs/2406.05285 and {_CODE}/vista3d/"
            "README_research.md",
        },
    ),
)
"""The image encoder."""
