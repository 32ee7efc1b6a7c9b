"""SuPreM: encoders pre-trained with labels of AbdomenAtlas 1.1.

Li et al., "How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks?", ICLR 2024.
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout, Overlap, Scans

_REVISION = "d578ccee72fda23ae0feac82adc35109a954ce03"
"""The commit of the Hub repository that added the SwinUNETR weights (2024-01-22)."""

_CODE = "https://github.com/MrGiovanni/SuPreM/blob/76e1a64a5943dff9338415fdb48efe3ef3557bb4"

_PREPROCESSING = Preprocessing.of_window(
    -175.0, 250.0, spacing=(1.5, 1.5, 1.5), orientation="RAS", window=(96, 96, 96)
)

_SCANS = (
    Scans("AbdomenAtlas 1.1, a part", 2100, "labeled", "https://github.com/MrGiovanni/SuPreM"),
)
"""What the encoders were pre-trained on."""

_OVERLAPS = (
    Overlap(
        "unknown",
        (
            "btcv",
            "lits17",
            "msd_task07_pancreas",
            "flare22",
            "kits23",
            "word",
            "amos22",
            "chaos",
            "msd_task03_liver",
            "msd_task06_lung",
            "msd_task08_hepatic_vessel",
            "msd_task09_spleen",
            "msd_task10_colon",
            "organ_mnist_3d",
            "nodule_mnist_3d",
            "luna25",
            "cc_ccii",
        ),
        "The 2,100 scans are not named.",
        "https://github.com/MrGiovanni/SuPreM/issues/9",
    ),
    Overlap(
        "unknown",
        ("openkbp",),
        "Whether its patients are among the scans of the pre-training was not looked up.",
    ),
    Overlap(
        "none",
        ("totalsegmentator",),
        "The authors state that it is completely unseen.",
        "https://github.com/MrGiovanni/SuPreM/blob/main/document/frequently_asked_questions.md",
    ),
)
"""Which of our tasks that overlaps with."""


def _notes(parameters: str) -> tuple[str, ...]:
    return (
        "The released weights are of 2,100 scans, not of the 9,262 of the paper (issue 9); which "
        "ones is not published.",
        f"The authors state {parameters} parameters for the network with its decoder; the "
        "encoder's number is not published.",
        "The license is that of the authors' repository; the weights have none of their own that "
        "we know of.",
    )


ENTRIES = (
    Entry(
        name="radiology/suprem_swin_unetr",
        title="SuPreM, SwinUNETR",
        network=swin_unetr.NETWORK,
        arguments=swin_unetr.arguments(48, use_v2=False),
        weights=f"MrGiovanni/SuPreM@{_REVISION}#supervised_suprem_swinunetr_2100.pth",
        sha256="b1672096465974502ccd5e2f2e5fce2ce214d6fb9848b23fc24f7b8888ffb4a3",
        preprocessing=_PREPROCESSING,
        parameters=42_588_786,
        embedding_dim=swin_unetr.embedding_dim(48),
        maps=swin_unetr.maps(48),
        license="CC-BY-NC-ND-4.0",
        pretraining="2,100 CT volumes of AbdomenAtlas, with labels of 25 organs",
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_notes("62.19 M"),
        sources={
            "paper": "https://arxiv.org/abs/2501.11253",
            "weights": "https://huggingface.co/MrGiovanni/SuPreM",
            "sha256": f"https://huggingface.co/MrGiovanni/SuPreM/blob/{_REVISION}/"
            "supervised_suprem_swinunetr_2100.pth",
            "license": f"{_CODE}/LICENSE",
            "architecture": f"{_CODE}/supervised_pretraining/backbone/swinunetr.py",
            "patch merging": f"{_CODE}/supervised_pretraining/README.md (MONAI 0.9.0)",
            "preprocessing": f"{_CODE}/supervised_pretraining/train.py#L238, "
            "supervised_pretraining/dataset/dataloader_bdmap.py#L173",
            "pretraining": f"{_CODE}/README.md",
        },
    ),
    Entry(
        name="radiology/suprem_segresnet",
        title="SuPreM, SegResNet",
        network="eva_coralbay.models.networks.segresnet.SegResNetEncoder",
        arguments={"init_filters": 16, "blocks_down": (1, 2, 2, 4)},
        # the commit that added this file is not known here: the hash below pins it
        weights="MrGiovanni/SuPreM#supervised_suprem_segresnet_2100.pth",
        keys=KeyLayout(nest=("net",), beside=r"(?!convInit\.|down_layers\.)"),
        md5="fa044baf9a49832e7fe6ab55c9227e49",
        preprocessing=_PREPROCESSING,
        parameters=4_399_344,
        embedding_dim=240,
        maps=tuple(FeatureMap.of_stride(16 * 2**level, 2**level) for level in range(4)),
        license="CC-BY-NC-ND-4.0",
        pretraining="2,100 CT volumes of AbdomenAtlas, with labels of 25 organs",
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_notes("4.70 M"),
        sources={
            "paper": "https://arxiv.org/abs/2501.11253",
            "weights": "https://huggingface.co/MrGiovanni/SuPreM",
            "md5": "the class of this name in kaiko-eva 0.4.5",
            "license": f"{_CODE}/LICENSE",
            "architecture": "the class of this name in kaiko-eva 0.4.5",
            "preprocessing": f"{_CODE}/supervised_pretraining/train.py#L238, "
            "supervised_pretraining/dataset/dataloader_bdmap.py#L173",
            "pretraining": f"{_CODE}/README.md",
        },
    ),
)
"""The encoders of both networks."""
