"""Data sets of many organs."""

from eva_coralbay.tasks.catalog import _common, _downloads
from eva_coralbay.tasks.facts import BACKGROUND, SOFT_TISSUE_HU, License, Resource, Task, Training

# the label values of the challenge (https://www.synapse.org/Synapse:syn3193805)
_BTCV_LABELS = (
    BACKGROUND,
    "spleen",
    "right_kidney",
    "left_kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior_vena_cava",
    "portal_and_splenic_vein",
    "pancreas",
    "right_adrenal_gland",
    "left_adrenal_gland",
)

BTCV = Task(
    id="btcv",
    title="BTCV",
    kind="segmentation",
    labels=_BTCV_LABELS,
    dataset="eva_coralbay.data.datasets.BTCV",
    published_cases=30,
    license=_common.CC_BY,
    homepage="https://www.synapse.org/Synapse:syn3193805",
    access="account at synapse.org",
    how_to_get=(
        "Register at https://www.synapse.org, accept the terms of Synapse:syn3193805, download "
        "Abdomen/RawData.zip, and unpack it into the root."
    ),
    steps=20_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=_common.organ_tolerances(_BTCV_LABELS),
)

# those of the challenge, checked in VoCo's data list
# (https://github.com/Luffy03/VoCo/blob/main/Finetune/Flare22/dataset/dataset.json) and at
# https://huggingface.co/datasets/YongchengYAO/FLARE22-Lite
_FLARE22_LABELS = (
    BACKGROUND,
    "liver",
    "right_kidney",
    "spleen",
    "pancreas",
    "aorta",
    "inferior_vena_cava",
    "right_adrenal_gland",
    "left_adrenal_gland",
    "gallbladder",
    "esophagus",
    "stomach",
    "duodenum",
    "left_kidney",
)

FLARE22 = Task(
    id="flare22",
    title="FLARE22",
    kind="segmentation",
    labels=_FLARE22_LABELS,
    dataset="eva_coralbay.data.datasets.FLARE22",
    published_cases=50,
    # the strictest that is stated: others read CC BY 4.0 from the record at Zenodo
    license=_common.CC_BY_NC_SA,
    homepage="https://flare22.grand-challenge.org",
    how_to_get=(
        "Set `download`, or download FLARE22Train.zip from https://zenodo.org/records/7860267 and "
        "unpack it into the root."
    ),
    resources=(
        Resource(
            url="https://zenodo.org/records/7860267/files/FLARE22Train.zip",
            filename="FLARE22Train.zip",
            checksum="sha256:d57e201dc9002bd4a6fc1f5e0d4525285f46bcc5be1a3c8f12543151e6675154",
        ),
    ),
    steps=20_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=_common.organ_tolerances(_FLARE22_LABELS),
    # its 50 labeled scans are from the Decathlon's pancreas task (https://arxiv.org/abs/2308.05862,
    # https://zenodo.org/records/7860267); which of them is not published, so that scored ones may
    # be in common
    shares_scans_with=("msd_task07_pancreas",),
)

# those of its `dataset.json`; volumes and positions of the organs in the published test labels
# agree with them
_WORD_LABELS = (
    BACKGROUND,
    "liver",
    "spleen",
    "left_kidney",
    "right_kidney",
    "stomach",
    "gallbladder",
    "esophagus",
    "pancreas",
    "duodenum",
    "colon",
    "intestine",
    "adrenal",
    "rectum",
    "bladder",
    "left_head_of_femur",
    "right_head_of_femur",
)

WORD = Task(
    id="word",
    title="WORD",
    kind="segmentation",
    labels=_WORD_LABELS,
    dataset="eva_coralbay.data.datasets.WORD",
    published_cases=150,
    # the authors name the GPL, and exclude clinical and commercial use and redevelopment
    license=License("GPL-3.0 for academic research only, NC", "https://github.com/HiLab-git/WORD"),
    homepage="https://github.com/HiLab-git/WORD",
    access="link at github.com/HiLab-git/WORD",
    how_to_get=(
        "Download WORD-V0.1.0.zip by the link at https://github.com/HiLab-git/WORD and unpack it "
        "into the root with the password given there (AES, so with 7z); it makes WORD-V0.1.0/. "
        "Unpack WORD_V0.1.0_labelsTs.zip, the labels of the test cases, from the same page into "
        "WORD-V0.1.0/, or set `download` for them."
    ),
    # the labels of the test cases; the rest is kept where no plain download reaches it
    resources=(
        Resource(
            url="https://github.com/HiLab-git/WORD/raw/main/WORD_V0.1.0_labelsTs.zip",
            filename="WORD-V0.1.0/WORD_V0.1.0_labelsTs.zip",
            checksum="sha256:0552b1e208a8a5345a1c12003d4f1d010621c6ef65bdd62bff85a32b2976a46d",
        ),
    ),
    steps=20_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=_common.organ_tolerances(_WORD_LABELS),
)

# those of its `dataset.json`, as VoCo's copy has them
# (https://github.com/Luffy03/Large-Scale-Medical/blob/main/Downstream/monai/Amos/dataset_CT.json)
_AMOS22_LABELS = (
    BACKGROUND,
    "spleen",
    "right_kidney",
    "left_kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior_vena_cava",
    "pancreas",
    "right_adrenal_gland",
    "left_adrenal_gland",
    "duodenum",
    "bladder",
    "prostate_or_uterus",
)

AMOS22 = Task(
    id="amos22",
    title="AMOS22 (CT)",
    kind="segmentation",
    labels=_AMOS22_LABELS,
    dataset="eva_coralbay.data.datasets.AMOS22",
    published_cases=300,
    # that of the record at Zenodo; the `dataset.json` in the archive names CC BY-SA 4.0
    license=_common.CC_BY,
    homepage="https://zenodo.org/records/7262581",
    how_to_get=(
        "Set `download`, or download amos22.zip from https://zenodo.org/records/7262581 and unpack "
        "it into the root."
    ),
    resources=(
        Resource(
            url="https://zenodo.org/records/7262581/files/amos22.zip",
            filename="amos22.zip",
            checksum="md5:67717b2a483ac0744c89c3016b7aaef7",
        ),
    ),
    steps=30_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=_common.organ_tolerances(_AMOS22_LABELS),
)

# https://chaos.grand-challenge.org/Data/: of the CT scans only the liver is labeled
_CHAOS_LABELS = (BACKGROUND, "liver")

CHAOS = Task(
    id="chaos",
    title="CHAOS (CT)",
    kind="segmentation",
    labels=_CHAOS_LABELS,
    dataset="eva_coralbay.data.datasets.CHAOS",
    published_cases=20,
    # that of the challenge (https://chaos.grand-challenge.org/Rules/, rule 2)
    license=_common.CC_BY_NC_SA,
    homepage="https://chaos.grand-challenge.org",
    how_to_get=(
        "Set `download`, or download CHAOS_Train_Sets.zip from https://zenodo.org/records/3431873 "
        "and unpack it into the root."
    ),
    resources=(
        Resource(
            url="https://zenodo.org/records/3431873/files/CHAOS_Train_Sets.zip",
            filename="CHAOS_Train_Sets.zip",
            checksum="md5:df21053002a1cc86df918a87da3b2c19",
        ),
    ),
    steps=20_000,
    val_interval=500,
    spacing=(1.5, 1.5, 1.5),
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=_common.organ_tolerances(_CHAOS_LABELS),
)

TOTALSEGMENTATOR = Task(
    id="totalsegmentator",
    title="TotalSegmentator v2 (CT)",
    kind="segmentation",
    # the class map "total" (https://github.com/wasserth/TotalSegmentator#class-details)
    labels=(
        BACKGROUND,
        "spleen",
        "kidney_right",
        "kidney_left",
        "gallbladder",
        "liver",
        "stomach",
        "pancreas",
        "adrenal_gland_right",
        "adrenal_gland_left",
        "lung_upper_lobe_left",
        "lung_lower_lobe_left",
        "lung_upper_lobe_right",
        "lung_middle_lobe_right",
        "lung_lower_lobe_right",
        "esophagus",
        "trachea",
        "thyroid_gland",
        "small_bowel",
        "duodenum",
        "colon",
        "urinary_bladder",
        "prostate",
        "kidney_cyst_left",
        "kidney_cyst_right",
        "sacrum",
        "vertebrae_S1",
        *(f"vertebrae_L{number}" for number in range(5, 0, -1)),
        *(f"vertebrae_T{number}" for number in range(12, 0, -1)),
        *(f"vertebrae_C{number}" for number in range(7, 0, -1)),
        "heart",
        "aorta",
        "pulmonary_vein",
        "brachiocephalic_trunk",
        "subclavian_artery_right",
        "subclavian_artery_left",
        "common_carotid_artery_right",
        "common_carotid_artery_left",
        "brachiocephalic_vein_left",
        "brachiocephalic_vein_right",
        "atrial_appendage_left",
        "superior_vena_cava",
        "inferior_vena_cava",
        "portal_vein_and_splenic_vein",
        "iliac_artery_left",
        "iliac_artery_right",
        "iliac_vena_left",
        "iliac_vena_right",
        "humerus_left",
        "humerus_right",
        "scapula_left",
        "scapula_right",
        "clavicula_left",
        "clavicula_right",
        "femur_left",
        "femur_right",
        "hip_left",
        "hip_right",
        "spinal_cord",
        "gluteus_maximus_left",
        "gluteus_maximus_right",
        "gluteus_medius_left",
        "gluteus_medius_right",
        "gluteus_minimus_left",
        "gluteus_minimus_right",
        "autochthon_left",
        "autochthon_right",
        "iliopsoas_left",
        "iliopsoas_right",
        "brain",
        "skull",
        *(f"rib_left_{number}" for number in range(1, 13)),
        *(f"rib_right_{number}" for number in range(1, 13)),
        "sternum",
        "costal_cartilages",
    ),
    dataset="eva_coralbay.data.datasets.TotalSegmentator",
    published_cases=1228,
    license=_common.CC_BY,
    # version 2.0.1 of the data has the DOI 10.5281/zenodo.10047292
    homepage="https://zenodo.org/records/10047292",
    how_to_get=(
        "Set `download`, or download Totalsegmentator_dataset_v201.zip from "
        "https://zenodo.org/records/10047292 and unpack it into the root."
    ),
    resources=(
        Resource(
            url="https://zenodo.org/records/10047292/files/Totalsegmentator_dataset_v201.zip",
            filename="Totalsegmentator_dataset_v201.zip",
            checksum="md5:fe250e5718e0a3b5df4c4ea9d58a62fe",
        ),
    ),
    steps=30_000,
    val_interval=5000,
    spacing=(1.5, 1.5, 1.5),
    hu_window=_common.WHOLE_BODY_HU,
    nsd_tolerance=_common.OTHER_STRUCTURES_MM,
)

OPENKBP = Task(
    id="openkbp",
    title="OpenKBP",
    kind="segmentation",
    # the names of the files; the values are ours, as each organ is a file of its own
    labels=(
        BACKGROUND,
        "Brainstem",
        "SpinalCord",
        "RightParotid",
        "LeftParotid",
        "Mandible",
    ),
    dataset="eva_coralbay.data.datasets.OpenKBP",
    published_cases=99,
    license=License("MIT", "https://github.com/ababier/open-kbp/blob/master/LICENSE"),
    homepage="https://github.com/ababier/open-kbp",
    how_to_get=(
        "Set `download` (99 patients, 240 MB), or clone https://github.com/ababier/open-kbp: the "
        "clone is the root."
    ),
    # the archives of a repository are made on demand: they have no checksum and cannot be resumed
    resources=_downloads.read_list(
        "openkbp",
        base_url=(
            "https://raw.githubusercontent.com/ababier/open-kbp/"
            "ce625e62f3b04203f22bd9d1634f3e8fb0245e46"
        ),
    ),
    # minutes on a CPU: the small organs are not found in them unless they count for more
    steps=500,
    val_interval=500,
    training=Training(
        batch_size=1,
        num_samples=1,
        lr=0.002,
        class_weights=(0.1, 1.0, 1.5, 1.5, 1.5, 1.0),
        overlap=0.25,
        monitor_overlap=0.0,
    ),
    crop=(64, 64, 64),
    # the voxels are 4 to 5 mm wide and 2 to 3 mm thick
    spacing=(3.0, 3.0, 3.0),
    hu_window=SOFT_TISSUE_HU,
    nsd_tolerance=_common.OTHER_STRUCTURES_MM,
)
