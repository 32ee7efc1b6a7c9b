"""CoralBay: self-distillation (DINO) on concatenated multi-scale features of a 3D Swin encoder.

https://arxiv.org/abs/2606.03888
"""

from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry, Overlap, Scans

_REVISION = "eb7ef5f523ae3acf8b39db3c311d0bb42d507075"
"""The revision of the published weights that this package was written for."""

_SCANS = (
    Scans(
        "unlabeled CT scans, not named",
        11000,
        "unlabeled",
        "https://huggingface.co/kaiko-ai/coralbay",
    ),
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
            "totalsegmentator",
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
        "The data sets of the pre-training are not named in what we could read.",
    ),
    Overlap(
        "unknown",
        ("openkbp",),
        "Whether its patients are among the scans of the pre-training was not looked up.",
    ),
)
"""Which of our tasks that overlaps with."""

_NOTES = (
    "The number of scans is the rounded one of the announcement (11 K).",
    "The number of parameters is that of the architecture at feature size 48, counted by us.",
)

"""What a reader of the card should know."""

_RANDOM_NOTES = (
    "The floor of every pre-training: the same architecture as CoralBay, not trained.",
    "The number of parameters is that at feature size 48, counted by us.",
)
"""The same of the network with random weights."""

ENTRIES = (
    Entry(
        name="radiology/coralbay",
        title="CoralBay (kaiko.ai)",
        network=swin_unetr.NETWORK,
        arguments={},
        weights=f"kaiko-ai/coralbay@{_REVISION}",
        preprocessing=None,
        parameters=53_164_146,
        embedding_dim=None,
        maps=(),
        license="MIT",
        pretraining="11,000 CT scans that are not named, without labels",
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_NOTES,
        sources={
            "paper": "https://arxiv.org/abs/2606.03888",
            "weights": "https://huggingface.co/kaiko-ai/coralbay",
            "pretraining": "https://huggingface.co/kaiko-ai/coralbay",
            "license": f"https://huggingface.co/kaiko-ai/coralbay/blob/{_REVISION}/README.md",
        },
    ),
    Entry(
        name="radiology/coralbay_random",
        title="CoralBay's encoder, random weights",
        network=swin_unetr.NETWORK,
        arguments={},
        weights=None,
        preprocessing=None,
        parameters=53_164_146,
        embedding_dim=None,
        maps=(),
        license=None,
        pretraining="nothing",
        scans=(),
        overlaps=(),
        notes=_RANDOM_NOTES,
        sources={"paper": "https://arxiv.org/abs/2606.03888"},
    ),
)
"""The published weights, and none."""
