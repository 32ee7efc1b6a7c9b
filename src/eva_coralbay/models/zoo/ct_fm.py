"""CT-FM: contrastive self-supervision within scans of the Imaging Data Commons.

https://arxiv.org/abs/2501.09001
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = "https://github.com/project-lighter/CT-FM/blob/f58c89a75ff0270ba6e339027e40bf04a221735d"

_SCANS = (
    Scans(
        "Imaging Data Commons, 69 cohorts", 148000, "unlabeled", "https://aim.hms.harvard.edu/ct-fm"
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
        "Its 69 cohorts of the Imaging Data Commons have not been matched with the cases of "
        "this task.",
        "https://aim.hms.harvard.edu/ct-fm",
    ),
    Overlap(
        "unknown",
        ("openkbp",),
        "Whether its patients are among the scans of the pre-training was not looked up.",
    ),
)
"""Which of our tasks that overlaps with."""

_NOTES = ("The authors state 77 M parameters for the encoder.",)

"""What a reader of the card should know."""

ENTRIES = (
    Entry(
        name="radiology/ct_fm",
        title="CT-FM",
        network="eva_coralbay.models.networks.segresnet.SegResNetDSEncoder",
        arguments={"init_filters": 32, "blocks_down": (1, 2, 2, 4, 4), "norm": "batch"},
        weights="project-lighter/ct_fm_feature_extractor#model.safetensors",
        keys=KeyLayout(),
        preprocessing=Preprocessing.of_window(
            -1024.0, 2048.0, spacing=(3.0, 1.0, 1.0), orientation="SPL", window=(24, 128, 128)
        ),
        parameters=77_760_992,
        embedding_dim=512,
        maps=tuple(FeatureMap.of_stride(32 * 2**level, 2**level) for level in range(5)),
        license="Apache-2.0",
        pretraining="148,000 CT scans of the Imaging Data Commons, without labels",
        scans=_SCANS,
        overlaps=_OVERLAPS,
        notes=_NOTES,
        sources={
            "paper": "https://arxiv.org/abs/2501.09001",
            "weights": "https://huggingface.co/project-lighter/ct_fm_feature_extractor",
            "license": "https://huggingface.co/project-lighter/ct_fm_feature_extractor",
            "architecture": f"{_CODE}/experiments/fm/backbones/segresenc.yaml",
            "preprocessing": f"{_CODE}/experiments/fm/base.yaml (spacing) and "
            "experiments/fm/frameworks/intrasample_simclr.yaml",
            "pretraining": f"{_CODE}/README.md",
        },
    ),
)
"""The feature extractor."""
