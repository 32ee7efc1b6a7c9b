"""The command `eva-coralbay segment`."""

import argparse
import pathlib

from typing_extensions import override

from eva_coralbay.cli import _output, _scans, _subcommand
from eva_coralbay.errors import EvaCoralbayError


class Segment(_subcommand.Subcommand):
    """Segments CT scans with the decoder or the probe that a run has trained.

    Writes one label map per scan, on the scan's own grid (a NIfTI file's shape, axis order, affine
    and units, or the grid of a DICOM series). The names of the labels are in labels.json and in the
    header. After an interruption, repeat the command to continue. A file that cannot be read or is
    not a CT scan in HU is named and left out, and the exit code is then 1.

    The files of the run name the classes that are built, so use only runs that you trust.
    """

    name = "segment"
    help = "segment your own scans with the decoder or probe of a run"
    examples = """
        eva-coralbay segment /mnt/scans --run logs/mine/nnunet/SESSION/run_0 --out segmentations
        eva-coralbay segment scan.nii.gz --run RUN --out out --overlay --probabilities
        eva-coralbay segment study/ archive.zip --run RUN --out out --dicom-seg --device cuda:0
    """

    if_too_many = (
        "--run takes one run, LOGS/SESSION/run_K, but a pattern such as LOGS/* may stand for "
        "several folders; and all SRC have to stand together."
    )

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _scans.add_sources(parser)
        parser.add_argument(
            "--run",
            metavar="RUN",
            required=True,
            type=_scans.path,
            # `run` is the function of the command
            dest="trained",
            help="the folder of a run of `eva fit` on a segmentation, LOGS/SESSION/run_K",
        )
        parser.add_argument(
            "--out", metavar="DIR", required=True, type=_scans.path, help="the folder to write"
        )
        parser.add_argument(
            "--which",
            choices=("last", "best"),
            help="the checkpoint of the last step, or the best one on val (default: the one that "
            "the run is scored by)",
        )
        parser.add_argument(
            "--overlay", action="store_true", help="also draw each scan with its labels, as PNG"
        )
        parser.add_argument(
            "--probabilities",
            action="store_true",
            help="also write the probabilities of all classes, in steps of 1/255",
        )
        parser.add_argument(
            "--dicom-seg",
            action="store_true",
            help="also write the label maps of DICOM series as DICOM SEG (needs highdicom)",
        )
        parser.add_argument(
            "--device",
            help="where to compute, such as cpu or cuda:0 (default: the first GPU, or the CPU)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Segments the scans."""
        if not arguments.trained.is_dir():
            raise EvaCoralbayError(f"There is no folder '{arguments.trained}': name that of a run.")
        for source in arguments.sources:
            if (pathlib.Path(source) / "config.yaml").exists():
                raise EvaCoralbayError(
                    f"'{source}' is the folder of a run, and no scan: --run takes one run."
                )
        _output.announce_imports()
        from eva_coralbay.inference import segmenting_job, trained

        report = segmenting_job.segment_scans(
            arguments.sources,
            arguments.out,
            trained.load(
                arguments.trained,
                selection=arguments.which,
                device=arguments.device or _scans.default_device(),
            ),
            wanted=segmenting_job.Wanted(
                arguments.overlay, arguments.probabilities, arguments.dicom_seg
            ),
            exclude=arguments.exclude,
        )
        print(f"segmentations: {arguments.out}")
        return _scans.report(report.failures, done=report.segmented, known=report.known)
