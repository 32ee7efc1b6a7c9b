"""The kinds of input of the campaign. To add one, write a module with a `Kind` and list it here."""

from collections.abc import Mapping

from tests.fuzz import (
    archives,
    arrays,
    command_lines,
    descriptions,
    dicom_series,
    http_answers,
    kills,
    nifti_files,
    submissions,
    sweeps,
    weight_files,
)
from tests.fuzz.campaign import Kind

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        nifti_files.SCANS,
        nifti_files.MASKS,
        descriptions.NNUNET,
        descriptions.MSD,
        arrays.ARRAYS,
        archives.ARCHIVES,
        http_answers.ANSWERS,
        dicom_series.SERIES,
        weight_files.CHECKPOINTS,
        weight_files.EXPORTS,
        submissions.SUBMISSIONS,
        sweeps.SWEEPS,
        command_lines.COMMANDS,
        kills.KILLS,
    )
}
"""All kinds by their names."""
