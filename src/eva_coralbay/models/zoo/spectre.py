"""SPECTRE: self-distillation (DINO) of a vision transformer, then alignment with reports.

https://arxiv.org/abs/2511.17209
"""

import dataclasses

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = "https://github.com/cclaess/SPECTRE/blob/9260676a4ff4f7ed9be5ef75b2fd581a21a8b363"

_DATA = f"{_CODE}/src/spectre/configs/dino_default.yaml"

_DATA_SETS = (
    "CT-RATE", "INSPECT", "Merlin", "NLST", "AMOS", "AbdomenAtlas", "PANORAMA", "AbdomenCT-1K",
)  # fmt: skip
"""Those that the default configuration of its self-distillation lists."""

_ABDOMEN_1K = "https://github.com/JunMa11/AbdomenCT-1K"

_ABDOMEN_1K_PARTS = (
    f"{_ABDOMEN_1K}/blob/54c5e084dab5288185a97c378862f0561f3f6a3c/4-ContinualLearning/README.md"
)
"""Where its authors count what AbdomenCT-1K has of other data sets."""

_EXACTLY = "whether the published weights were trained by exactly it is not stated"
"""What is open of its code."""

_OVERLAPS = (
    Overlap(
        "test",
        ("amos22",),
        "Its code reads every scan of AMOS, so all 100 scored cases and all others, without "
        f"labels; {_EXACTLY}.",
        f"{_CODE}/src/spectre/data/amos.py",
    ),
    Overlap(
        "test",
        ("msd_task07_pancreas",),
        "Its code reads every scan of AbdomenCT-1K, which has 281 cases of this data set, as many "
        f"as are published with labels: all 56 scored cases, without labels; {_EXACTLY}.",
        _ABDOMEN_1K_PARTS,
    ),
    Overlap(
        "test",
        ("msd_task09_spleen",),
        "Its code reads every scan of AbdomenCT-1K, which has 41 cases of this data set, as many "
        f"as are published with labels: all 12 scored cases, without labels; {_EXACTLY}.",
        _ABDOMEN_1K_PARTS,
    ),
    Overlap(
        "test",
        ("kits23",),
        "Its code reads every scan of AbdomenCT-1K, which has 210 cases of KiTS, as many as KiTS19 "
        "has published with labels: 43 of the 98 scored cases are of these, without labels; "
        f"{_EXACTLY}.",
        _ABDOMEN_1K_PARTS,
    ),
    Overlap(
        "test",
        ("lits17", "msd_task03_liver"),
        "Its code reads every scan of AbdomenCT-1K, in which a user has found the 20 scans 28 to "
        f"47 of LiTS: 4 of the 26 scored cases are of these, without labels; {_EXACTLY}.",
        f"{_ABDOMEN_1K}/issues/27",
    ),
    Overlap(
        "unlabeled-train",
        ("organ_mnist_3d",),
        "Made from LiTS, of which a user has found 20 training scans in AbdomenCT-1K, which its "
        "code reads; scored cases cannot be ruled out, as which others are in it is not published.",
        f"{_ABDOMEN_1K}/issues/27",
    ),
    Overlap(
        "unknown",
        (
            "btcv",
            "flare22",
            "word",
            "chaos",
            "msd_task06_lung",
            "msd_task08_hepatic_vessel",
            "msd_task10_colon",
        ),
        "Its code names AbdomenAtlas 1.0, which draws on this data set, but not the cases of it.",
        "https://github.com/MrGiovanni/AbdomenAtlas/issues/2",
    ),
    Overlap(
        "none",
        ("totalsegmentator",),
        "It is neither among its data sets nor among those that AbdomenAtlas 1.0 is made of.",
        "https://github.com/MrGiovanni/AbdomenAtlas/issues/2",
    ),
    Overlap(
        "none",
        ("openkbp",),
        "None of its data sets is of head-and-neck cancer, which all patients of this task had.",
        _DATA,
    ),
    Overlap(
        "none",
        ("nodule_mnist_3d", "cc_ccii"),
        "What it is made of is not among its data sets.",
        _DATA,
    ),
    Overlap(
        "unknown",
        ("luna25",),
        "Made from NLST, which is among its data sets; which scans of it is not known.",
        _DATA,
    ),
)
"""Which of our tasks that overlaps with."""

_LOCAL = Entry(
    name="radiology/spectre_local",
    title="SPECTRE (local ViT-L)",
    network="eva_coralbay.models.networks.split_rotary_vit.SplitRotaryViT",
    arguments={
        "embed_dim": 1080,
        "depth": 24,
        "num_heads": 12,
        "patch_size": (16, 16, 8),
        "rope_base": 1000.0,
    },
    weights="cclaess/SPECTRE#spectre_backbone_vit_large_patch16_128.pt",
    keys=KeyLayout(),
    # the original clips before it resamples, and so differs at edges beyond the window
    preprocessing=Preprocessing.of_window(
        -1000.0,
        1000.0,
        spacing=(0.5, 0.5, 1.0),
        orientation="RAS",
        window=(128, 128, 64),
        multiple_of=(16, 16, 8),
    ),
    parameters=338_528_160,
    embedding_dim=2160,
    maps=(FeatureMap(1080, (16, 16, 8)),),
    license="CC-BY-NC-SA-4.0",
    pretraining="CT-RATE, INSPECT, Merlin, NLST, AMOS, AbdomenAtlas, PANORAMA and "
    "AbdomenCT-1K, partly with reports",
    scans=tuple(Scans(name, None, "unlabeled", _DATA) for name in _DATA_SETS),
    overlaps=_OVERLAPS,
    sources={
        "paper": "https://arxiv.org/abs/2511.17209",
        "weights": f"{_CODE}/README.md",
        "license": f"{_CODE}/LICENSE_MODELS",
        "architecture": f"{_CODE}/src/spectre/model.py, models/vision_transformer.py",
        "preprocessing": f"{_CODE}/eval/save_embeddings_ct_rate.py",
        "pretraining": _DATA,
    },
)
"""The transformer of crops alone."""

_GLOBAL = dataclasses.replace(
    _LOCAL,
    name="radiology/spectre",
    title="SPECTRE (local and global ViT-L)",
    network="eva_coralbay.models.networks.crop_transformer.CropTransformer",
    arguments={
        **_LOCAL.arguments,
        "crop_size": (128, 128, 64),
        "combiner_depth": 4,
        "combiner_rope_base": 100.0,
    },
    more_weights=("cclaess/SPECTRE#spectre_combiner_feature_vit_large.pt",),
    # 3 x 3 x 4 crops, as in the example of its README
    preprocessing=_LOCAL.preprocessing
    and dataclasses.replace(_LOCAL.preprocessing, window=(384, 384, 256)),
    parameters=396_917_280,
    sources={
        **_LOCAL.sources,
        "architecture": f"{_LOCAL.sources['architecture']}, models/vision_transformer_features.py",
    },
    notes=(
        "A scan that is larger than 192 x 192 x 256 mm is several windows, whose embeddings are "
        "averaged. The original makes one grid of all whole crops in its middle.",
    ),
)
"""With the transformer of scans, which combines what the first one makes of crops."""

ENTRIES = (_GLOBAL, _LOCAL)
