"""Facts that several tasks share: licenses, HU windows, and tolerances of the surface Dice."""

from collections.abc import Mapping, Sequence

from eva_coralbay.tasks.facts import License

CC_BY = License("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/")
CC_BY_SA = License("CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
CC_BY_NC = License("CC-BY-NC-4.0", "https://creativecommons.org/licenses/by-nc/4.0/")
CC_BY_NC_SA = License("CC-BY-NC-SA-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/")
CC_BY_NC_ND = License("CC-BY-NC-ND-4.0", "https://creativecommons.org/licenses/by-nc-nd/4.0/")

LUNG_HU = (-1000.0, 400.0)
"""Air to soft tissue, so that the lung is not black: the window of LUNA25's baseline (the transform
of its `dataloader.py`, https://github.com/DIAGNijmegen/luna25-baseline-public; verified in a public
copy, https://github.com/namObank/luna25-baseline-public at 33139d3)."""

WHOLE_BODY_HU = (-1000.0, 1000.0)
"""Air to bone, for tasks that have lungs, organs and bones among their classes. It is our choice;
the published weights of CoralBay were trained with the same window."""

OTHER_STRUCTURES_MM = 3.0
"""The tolerance of TotalSegmentator for all structures (https://doi.org/10.1148/ryai.230024)."""

_ORGANS_MM: Mapping[str, float] = {
    "liver": 5.0,
    "kidney": 3.0,
    "spleen": 3.0,
    "pancreas": 5.0,
    "aorta": 2.0,
    "vena_cava": 2.0,
    "adrenal": 2.0,
    "gallbladder": 2.0,
    "esophagus": 3.0,
    "stomach": 5.0,
    "duodenum": 7.0,
}
"""The tolerances of FLARE22 (`FLARE22/Evaluation/FLARE22_DSC_NSD_Eval.py` of
https://github.com/JunMa11/FLARE at be3eb6f). That of the liver is not the Decathlon's."""


def organ_tolerances(labels: Sequence[str]) -> dict[str, float]:
    """Returns the tolerances of the normalized surface Dice for organs of the abdomen, in mm.

    They are those of FLARE22. What FLARE22 does not have gets that of TotalSegmentator.

    Args:
        labels: The names of the labels, with the background.
    """
    return {
        name: next(
            (tolerance for organ, tolerance in _ORGANS_MM.items() if organ in name),
            OTHER_STRUCTURES_MM,
        )
        for name in labels[1:]
    }
