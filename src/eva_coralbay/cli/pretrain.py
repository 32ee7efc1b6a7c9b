"""The commands below `eva-coralbay pretrain`: prepare, views, fit and export."""

import argparse

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.tasks import facts


class Prepare(_subcommand.Subcommand):
    """Finds scans, sets aside those that cannot be used (with a reason), and prepares the rest."""

    name = "prepare"
    help = "prepare NIfTI files and DICOM series for the training"
    examples = """
        eva-coralbay pretrain prepare /mnt/scans --out /scratch/store
        eva-coralbay pretrain prepare /mnt/a /mnt/b --out /scratch/store --workers 16
        eva-coralbay pretrain prepare /mnt/scans --out store --exclude '*/case_007*' '*_seg.nii.gz'
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources", metavar="SRC", nargs="+", help="a folder to search, or a NIfTI file"
        )
        parser.add_argument(
            "--out",
            metavar="STORE",
            required=True,
            help="the store; scans that are already in it are kept",
        )
        parser.add_argument(
            "--spacing",
            metavar=("D", "H", "W"),
            nargs=3,
            type=float,
            default=facts.SPACING_MM,
            help="the voxel spacing to resample to, in mm (default: 1.5 1.5 1.5)",
        )
        parser.add_argument(
            "--exclude",
            metavar="GLOB",
            nargs="+",
            # given twice, both count
            action="extend",
            default=[],
            help="patterns of paths below SRC to leave out, such as the cases of an evaluation; "
            "scans of the store that match are set aside; give the same patterns every time; a "
            "pattern that matches nothing is an error",
        )
        parser.add_argument(
            "--workers",
            metavar="N",
            type=_subcommand.at_least(1),
            help="the number of processes (default: one per core, at most 8)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prepares the scans."""
        _output.announce_imports()
        from eva_coralbay.pretraining.intake import prepare as prepare_lib

        content = prepare_lib.prepare(
            arguments.sources,
            arguments.out,
            spacing=arguments.spacing,
            exclude=arguments.exclude,
            workers=arguments.workers,
        )
        waiting = sum(case.status == "found" for case in content.cases)
        rows = [
            ("prepared", "", len(content.prepared)),
            *(
                ("set aside", reason, number)
                for reason, number in prepare_lib.count_reasons(content).items()
            ),
            *(
                [("found", "will be prepared when their source is given again", waiting)]
                if waiting
                else []
            ),
        ]
        _output.print_table(
            ("status", "reason", "scans"),
            ((status, reason, str(number)) for status, reason, number in rows),
            title="Scans of the store",
            numbers=("scans",),
        )
        return 1 if prepare_lib.count_failures(content) else 0


class Views(_subcommand.Subcommand):
    """Draws the views of a scan: what the network sees of it."""

    name = "views"
    help = "draw what the network sees of a scan"
    examples = """
        eva-coralbay pretrain views /scratch/store --case case_007
        eva-coralbay pretrain views /scratch/store --case case_007 --config mine.yaml --seed 3
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("store", metavar="STORE", help="what `pretrain prepare` wrote")
        parser.add_argument("--case", metavar="ID", required=True, help="the id of the scan")
        parser.add_argument("--out", metavar="PNG", help="where to draw (default: views_<ID>.png)")
        parser.add_argument(
            "--config", metavar="FILE", help="a config of `pretrain fit`, for its views"
        )
        parser.add_argument(
            "--seed",
            type=int,
            default=0,
            help="the random seed of the views (default: %(default)s)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Draws the views."""
        _output.announce_imports()
        from eva_coralbay.pretraining import fit, view_sheet

        path = arguments.out or f"views_{arguments.case}.png"
        views = fit.read_views(arguments.config) if arguments.config else None
        view_sheet.write_view_sheet(
            arguments.store, arguments.case, path, seed=arguments.seed, views=views
        )
        print(f"picture: {path}")
        return 0


class Fit(_subcommand.Subcommand):
    """Trains as a config says; after an interruption, the same command continues.

    Other options override values of the config, as with `eva fit`.
    """

    name = "fit"
    help = "train, or estimate what a training takes"
    examples = """
        eva-coralbay pretrain fit --config configs/vision/radiology/pretraining/quickstart.yaml
        eva-coralbay pretrain fit --config coralbay.yaml --dry-run --tflops 400
        eva-coralbay pretrain fit --config coralbay.yaml --trainer.init_args.max_steps 20000
        eva-coralbay pretrain fit --config coralbay.yaml --config probe.yaml
        torchrun --nproc-per-node 8 -m eva_coralbay pretrain fit --config coralbay.yaml
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--config",
            metavar="FILE",
            action="append",
            required=True,
            help="the config; a second one adds to it or changes it",
        )
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="state parameters, memory, FLOPs and hours, and check that the export will load",
        )
        parser.add_argument(
            "--tflops", type=float, help="the TFLOP/s that a device reaches, to estimate the hours"
        )
        parser.set_defaults(overrides=())

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Trains."""
        _output.announce_imports()
        from eva_coralbay.pretraining import fit

        configs = [f"--config={config}" for config in arguments.config]
        options = [*configs, *arguments.overrides]
        if arguments.dry_run:
            report = fit.dry_run(options, tflops=arguments.tflops)
            _output.print_table(("what", "how much"), report.rows, title="What the training takes")
        else:
            fit.fit(options)
        return 0


class Export(_subcommand.Subcommand):
    """Writes the teacher's encoder as a folder that eva, transformers and this package load."""

    name = "export"
    help = "write the encoder of a checkpoint, with a model card"
    examples = """
        eva-coralbay pretrain export logs/pretraining/coralbay/checkpoints/step=100000.ckpt \\
          --out encoder
        MODEL_NAME=radiology/coralbay CHECKPOINT=encoder eva fit --config btcv.yaml
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint of `pretrain fit`")
        parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Exports the encoder."""
        _output.announce_imports()
        from eva_coralbay.pretraining import export

        export.export(arguments.checkpoint, arguments.out)
        print(f"encoder: {arguments.out}")
        return 0


class Pretrain(_subcommand.Group):
    """Pre-trains an encoder on unlabeled scans: prepare, look at the views, fit, export."""

    name = "pretrain"
    help = "pre-train an encoder on your own scans"
    examples = """
        eva-coralbay pretrain prepare /mnt/scans --out /scratch/store
        eva-coralbay pretrain views /scratch/store --case ID
        eva-coralbay pretrain fit --config configs/vision/radiology/pretraining/coralbay.yaml
        eva-coralbay pretrain export logs/pretraining/coralbay/checkpoints/step=100000.ckpt \\
          --out encoder
    """
    subcommands = (Prepare(), Views(), Fit(), Export())
