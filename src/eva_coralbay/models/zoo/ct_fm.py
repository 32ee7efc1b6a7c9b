"""CT-FM: contrastive self-supervision within scans of the Imaging Data Commons.

https://arxiv.org/abs/2501.09001
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout, Overlap, Scans

_CODE = "https://github.com/project-lighter/CT-FM/blob/f58c89a75ff0270ba6e339027e40bf04a221735d"

_COLLECTIONS = f"{_CODE}/notebooks/data-exploration/idc_data_exploration.ipynb"
"""How many series of which collection the list of the pre-training has."""

_SCANS = (
    Scans("NLST", 128_037, "unlabeled", _COLLECTIONS),
    Scans("LIDC-IDRI", 974, "unlabeled", _COLLECTIONS),
    Scans("NSCLC Radiogenomics", 427, "unlabeled", _COLLECTIONS),
    Scans("C4KC-KiTS", 366, "unlabeled", _COLLECTIONS),
    Scans("65 other collections of the Imaging Data Commons", 18_590, "unlabeled", _COLLECTIONS),
)
"""What the encoders were pre-trained on."""

_OVERLAPS = (
    Overlap(
        "test",
        ("kits23",),
        "366 series of C4KC-KiTS, whose patients are those of the cases up to 209, are in its "
        "list, without labels. 43 of the 98 scored cases are of these patients; of which patients "
        "the series are has not been looked up, but one is that of a scored case (151).",
        _COLLECTIONS,
    ),
    Overlap(
        "unlabeled-train",
        ("nodule_mnist_3d",),
        "Made from LIDC-IDRI, of which 974 of the 1,018 scans are in its list, without labels; "
        "scored nodules cannot be ruled out, but which are of these scans is not known.",
        _COLLECTIONS,
    ),
    Overlap(
        "unknown",
        ("luna25",),
        "Made from NLST, of which 128,037 series are in its list, without labels; they have not "
        "been matched with the cases of this task.",
        _COLLECTIONS,
    ),
    Overlap(
        "unknown",
        ("msd_task06_lung",),
        "Made from NSCLC Radiogenomics, of which 427 series are in its list, without labels; of "
        "which patients the cases of this task are is not published.",
        _COLLECTIONS,
    ),
    Overlap(
        "none",
        ("openkbp",),
        "None of its 69 collections is of head-and-neck cancer, which all patients of this task "
        "had.",
        _COLLECTIONS,
    ),
    Overlap(
        "unknown",
        (
            "btcv",
            "lits17",
            "msd_task07_pancreas",
            "flare22",
            "word",
            "amos22",
            "chaos",
            "totalsegmentator",
            "msd_task03_liver",
            "msd_task08_hepatic_vessel",
            "msd_task09_spleen",
            "msd_task10_colon",
            "organ_mnist_3d",
            "cc_ccii",
        ),
        "None of its 69 collections has the name of this data set; whether one of them has scans "
        "of it under another name has not been looked up.",
        _COLLECTIONS,
    ),
)
"""Which of our tasks that overlaps with."""

_NOTES = (
    "The authors state 77 M parameters for the encoder.",
    "The numbers of scans are those of series that a notebook of the authors counts, 148,394 in "
    "all; the list of the series itself has not been matched with the cases of our tasks.",
)
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
