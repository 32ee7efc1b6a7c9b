"""The kinds of input of the campaign. To add one, write a module with a `Kind` and list it here."""

from collections.abc import Mapping

from tests.fuzz import (
    archives,
    arrays,
    command_lines,
    descriptions,
    dicom_headers,
    dicom_series,
    earlier_files,
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
        dicom_headers.HEADERS,
        weight_files.CHECKPOINTS,
        weight_files.EXPORTS,
        submissions.SUBMISSIONS,
        sweeps.SWEEPS,
        command_lines.COMMANDS,
        kills.KILLS,
        kills.FAILURES,
        earlier_files.EARLIER,
    )
}
"""All kinds by their names."""
