"""The command `eva-coralbay embed`."""

import argparse
import functools
from typing import TYPE_CHECKING

from typing_extensions import override

from eva_coralbay.cli import _output, _scans, _subcommand
from eva_coralbay.errors import EvaCoralbayError

if TYPE_CHECKING:
    from eva_coralbay.inference import embedding_job


class Embed(_subcommand.Subcommand):
    """Embeds CT scans with an encoder, preprocessed as for its training, into a Parquet table.

    Each row is a scan, or a region given by --roi or --mask: its id, the file and its SHA-256, the
    encoder and the SHA-256 of its weights, the preprocessing, the version, and the embedding. After
    an interruption, repeat the command to continue; later calls add scans. A file that cannot be
    read or is not a CT scan in HU is named and left out, and the exit code is then 1.
    """

    name = "embed"
    help = "embed your own scans: NIfTI, DICOM or archives, into a Parquet table"
    examples = """
        eva-coralbay embed /mnt/scans --model radiology/coralbay --out features.parquet
        eva-coralbay embed study.zip a.nii.gz --model radiology/ct_fm --out features.parquet
        eva-coralbay embed scans --model radiology/coralbay --checkpoint encoder --out mine.parquet
        eva-coralbay embed /mnt/scans --model radiology/fmcib --roi nodules.csv --roi-space lps \\
          --out nodules.parquet --devices cuda:0 cuda:1 --workers 16
        eva-coralbay embed imagesTr --model radiology/voco_b --mask labelsTr --pool mean+max \\
          --out organs.parquet
        eva-coralbay embed scan.nii.gz --model radiology/coralbay_random --out random.parquet
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _scans.add_sources(parser)
        parser.add_argument(
            "--out", metavar="PARQUET", required=True, type=_scans.path, help="the table"
        )
        _add_encoder(parser.add_argument_group("encoder"))
        _add_regions(parser.add_argument_group("regions (default: whole scans)"))
        _add_machine(parser.add_argument_group("machine"))

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Embeds the scans."""
        from eva_coralbay.inference import feature_table

        feature_table.check_pyarrow()
        _output.announce_imports()
        from eva_coralbay.inference import embedding_job
        from eva_coralbay.models import loading

        options = dict(arguments.kwarg)
        if arguments.checkpoint is not None:
            options["checkpoint"] = arguments.checkpoint
        report = embedding_job.embed_scans(
            arguments.sources,
            arguments.out,
            functools.partial(
                loading.build_named,
                arguments.model,
                random_weights=arguments.random_weights,
                **options,
            ),
            model=arguments.model,
            parts=_read_regions(arguments),
            exclude=arguments.exclude,
            pool=arguments.pool,
            num_maps=arguments.maps,
            spacing=arguments.spacing,
            hu_window=arguments.hu_window,
            window=arguments.window,
            workers=arguments.workers,
            devices=arguments.devices or [_scans.default_device()],
        )
        if report.rows:
            print(f"table: {arguments.out} ({report.rows} rows)")
        return _scans.report(report.failures, done=report.embedded, known=report.known)


def _add_encoder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", metavar="NAME", required=True, help="a name that `eva-coralbay models` lists"
    )
    _subcommand.add_encoder_arguments(group)
    group.add_argument(
        "--random-weights", action="store_true", help="leave the weights random, the same each time"
    )
    group.add_argument(
        "--pool",
        choices=("mean", "max", "mean+max"),
        default="mean",
        help="how feature maps and windows become one embedding (default: %(default)s, the "
        "network's own embedding)",
    )
    group.add_argument(
        "--maps",
        metavar="N",
        type=_subcommand.at_least(1),
        default=0,
        help="also keep the N coarsest feature maps, one .npz file per row in "
        "<name of PARQUET>_maps",
    )
    group.add_argument(
        "--spacing",
        metavar=("D", "H", "W"),
        nargs=3,
        type=float,
        help="another voxel spacing than the encoder's, in mm along the axes of its input "
        "(where it states none: 1.5 1.5 1.5)",
    )
    group.add_argument(
        "--hu-window",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="other HU than the encoder's that become 0 and 1 (where it states none: -175 250)",
    )
    group.add_argument(
        "--window",
        metavar=("D", "H", "W"),
        nargs=3,
        type=_subcommand.at_least(1),
        help="another size of windows than the encoder's, in voxels (if it states none: 96 96 96)",
    )


def _add_regions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--roi",
        metavar="FILE",
        type=_scans.path,
        help="a CSV or JSON file with points (x, y, z) or boxes (x_min, y_min, z_min, x_max, "
        "y_max, z_max) in mm, the scan in `case` (its id or file name), and a `name`",
    )
    group.add_argument(
        "--roi-space",
        choices=("ras", "lps"),
        help="the world of these positions: ras as in NIfTI files, lps as in DICOM and ITK",
    )
    group.add_argument(
        "--mask",
        metavar="PATH",
        type=_scans.path,
        help="a label map on the grid of the scan, or a folder with one label map per scan, "
        "named after its file or id; one row per label",
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers",
        metavar="N",
        type=_subcommand.at_least(1),
        help="processes that read scans (default: one per core, at most 8, fewer for little work)",
    )
    group.add_argument(
        "--devices",
        metavar="DEVICE",
        nargs="+",
        help="where to compute, such as cpu, or cuda:0 cuda:1 (default: the first GPU, or the CPU)",
    )


def _read_regions(arguments: argparse.Namespace) -> "embedding_job.Regions":
    from eva_coralbay.inference import embedding_job, regions

    if arguments.roi is not None and arguments.mask is not None:
        raise EvaCoralbayError("Give --roi or --mask, not both.")
    if (arguments.roi is None) != (arguments.roi_space is None):
        raise EvaCoralbayError(
            "--roi and --roi-space belong together: `ras` if the positions are those of NIfTI "
            "files, `lps` if they are those of DICOM or ITK."
        )
    if arguments.mask is not None and not arguments.mask.exists():
        raise EvaCoralbayError(f"'{arguments.mask}' does not exist (--mask).")
    of_case = regions.read(str(arguments.roi), space=arguments.roi_space) if arguments.roi else {}
    return embedding_job.Regions(of_case, arguments.mask)
