"""The commands below `eva-coralbay nnunet`: data and export."""

import argparse
import pathlib

from typing_extensions import override

from eva_coralbay.cli import _output, _scans, _subcommand


class Data(_subcommand.Subcommand):
    """Writes the scans and labels of a task as a data set of nnU-Net, with the task's split.

    Fold 0 trains on the training cases; imagesTs has the cases that are scored. Files that are
    there already are kept.
    """

    name = "data"
    help = "write a task in nnU-Net's raw layout, with our split"
    examples = """
        eva-coralbay nnunet data openkbp --root data/openkbp --out nnUNet_raw/Dataset501_OpenKBP
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("task", metavar="TASK", help="a segmentation of `eva-coralbay tasks`")
        parser.add_argument("--root", metavar="DIR", required=True, help="the folder of its data")
        parser.add_argument(
            "--out",
            metavar="DIR",
            required=True,
            type=_scans.path,
            help="the folder to write, nnUNet_raw/DatasetNNN_NAME",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Writes the data set."""
        _output.announce_imports()
        from eva_coralbay.nnunet import raw_data

        cases = raw_data.write(arguments.task, arguments.root, arguments.out)
        print(f"data set: {arguments.out} ({cases} cases)")
        return 0


class Export(_subcommand.Subcommand):
    """Writes plans and weights with which nnU-Net v2 trains a decoder on a Swin encoder.

    The plans are those that nnU-Net has made of the data set, with our network and its input in
    them. The stock trainer takes both: nnUNetv2_train 501 3d_fullres 0 -p NAME
    -pretrained_weights NAME.pth
    """

    name = "export"
    help = "write an encoder as plans and weights that nnU-Net v2 trains from"
    examples = """
        eva-coralbay nnunet export radiology/voco_b \\
          --plans nnUNet_preprocessed/Dataset501_OpenKBP/nnUNetPlans.json
        eva-coralbay nnunet export radiology/voco_b --native --frozen --plans nnUNetPlans.json
        eva-coralbay nnunet export radiology/coralbay --checkpoint encoder --plans nnUNetPlans.json
        eva-coralbay nnunet export radiology/coralbay_random --kwarg feature_size=24 \\
          --plans nnUNetPlans.json --out exported
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "model", metavar="NAME", help="a Swin encoder that `eva-coralbay models` lists"
        )
        parser.add_argument(
            "--plans", metavar="JSON", required=True, help="the plans of nnU-Net for the data set"
        )
        parser.add_argument(
            "--out",
            metavar="DIR",
            type=_scans.path,
            help="where to write (default: beside the plans, where nnU-Net looks for them)",
        )
        parser.add_argument(
            "--name",
            help="what the plans are called by (default: the name of the checkpoint or the model)",
        )
        _subcommand.add_encoder_arguments(parser)
        parser.add_argument(
            "--frozen", action="store_true", help="train the decoder only, not the encoder"
        )
        parser.add_argument(
            "--native",
            action="store_true",
            help="resample, orient and normalize scans as in the training of the encoder (default: "
            "the spacing of the plans, and HU from -175 to 250)",
        )
        parser.add_argument(
            "--hu-window",
            metavar=("LOW", "HIGH"),
            nargs=2,
            type=float,
            help="other HU that become 0 and 1",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Writes plans and weights."""
        _output.announce_imports()
        from eva_coralbay.models import loading
        from eva_coralbay.nnunet import export

        options = dict(arguments.kwarg)
        if arguments.checkpoint is not None:
            options["checkpoint"] = arguments.checkpoint
        plans, weights = export.export(
            loading.build_named(arguments.model, **options),
            arguments.plans,
            name=arguments.name or pathlib.Path(arguments.checkpoint or arguments.model).stem,
            out=arguments.out,
            is_frozen=arguments.frozen,
            is_native=arguments.native,
            hu_window=arguments.hu_window,
        )
        print(f"plans: {plans}\nweights: {weights}")
        print(
            f"next: nnUNetv2_preprocess -d DATASET -plans_name {plans.stem} -c 3d_fullres\n"
            f"      nnUNetv2_train DATASET 3d_fullres FOLD -p {plans.stem} "
            f"-pretrained_weights {weights}"
        )
        return 0


class NnUNet(_subcommand.Group):
    """Takes tasks and encoders to nnU-Net v2, which is to be installed beside this package."""

    name = "nnunet"
    help = "take a task, or an encoder to fine-tune, to nnU-Net v2"
    examples = """
        eva-coralbay nnunet data openkbp --root data/openkbp --out nnUNet_raw/Dataset501_OpenKBP
        eva-coralbay nnunet export radiology/voco_b \\
          --plans nnUNet_preprocessed/Dataset501_OpenKBP/nnUNetPlans.json
    """
    subcommands = (Data(), Export())
