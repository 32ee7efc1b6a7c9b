"""Command lines with values that no option takes."""

import json
import os
import pathlib

import numpy as np

from eva_coralbay.cli import main
from eva_coralbay.errors import EvaCoralbayError
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_COMMANDS = (
    "check-backbone VALUE", "check-backbone VALUE --json", "models --json", "models VALUE",
    "tasks VALUE", "tasks --json", "config VALUE", "config btcv --copy VALUE",
    "prepare VALUE --root VALUE", "prepare btcv --root VALUE",
    "prepare btcv --root . --workers VALUE",
    "inspect VALUE --root VALUE --case VALUE", "inspect nnunet --root . --out VALUE",
    "phantom VALUE --cases VALUE", "phantom out --cases 1 --val-cases VALUE", "results VALUE",
    "results . --json", "results . --csv VALUE", "curves VALUE", "curves . --out VALUE",
    "pretrain prepare VALUE --out VALUE",
    "pretrain prepare . --out out --spacing VALUE VALUE VALUE",
    "pretrain views VALUE --case VALUE", "pretrain export VALUE --out VALUE",
    "leaderboard validate VALUE", "leaderboard verify VALUE", "leaderboard verify VALUE --rerun",
    "leaderboard compare VALUE VALUE --task VALUE", "leaderboard build --results VALUE --out VALUE",
    "leaderboard submit VALUE --out VALUE", "leaderboard sweep VALUE", "leaderboard VALUE", "VALUE",
    "embed VALUE --model radiology/coralbay_random --kwarg feature_size=12 --out VALUE",
    "embed . --model VALUE --out VALUE", "embed . --model VALUE --out f.parquet --roi VALUE",
    "embed . --model radiology/coralbay_random --kwarg feature_size=VALUE --out f.parquet",
    "embed . --model radiology/coralbay_random --out f.parquet --devices VALUE",
    "segment VALUE --run VALUE --out VALUE", "segment . --run . --out VALUE --device VALUE",
    "VALUE --help", "env VALUE", "--debug VALUE",
)  # fmt: skip

_VALUES = (
    "", " ", ".", "..", "nowhere", "-1", "0", "1e9", "nan", "--", "-", "a\nb", "\udcff", "[/b]",
    "[bold]", "~", "~nobody/x", "$HOME", "btcv", "radiology/coralbay_random2", "a" * 5000,
    "/dev/null",
    "/dev/full", "file.txt", "file.txt/x", "locked/x", "https://127.0.0.1:1/x",
    "os.system", "a/b/c",
    "\u202e", "json:{}", "*", "1,2,3", "org/name@revision",
)  # fmt: skip


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    command = mutations.choose(random, _COMMANDS).split()
    arguments = [
        mutations.choose(random, _VALUES) if argument == "VALUE" else argument
        for argument in command
    ]
    (folder / "file.txt").write_text("text")
    (folder / "arguments.json").write_text(json.dumps(arguments))
    return folder / "arguments.json"


def _read(path: pathlib.Path) -> int:
    """Runs the command in the folder of the file; an error of it is one of ours."""
    arguments = json.loads(path.read_text())
    before = pathlib.Path.cwd()
    os.chdir(path.parent)
    try:
        status = main.main(arguments)
    except SystemExit as exit_:
        status = exit_.code
    finally:
        os.chdir(before)
    if "--debug" in arguments and isinstance(status, int):
        return status
    if status not in (0, None):
        raise EvaCoralbayError(f"{path.name}: ends with {status}")
    return 0


# a command imports what it computes with, up to PyTorch
COMMANDS = Kind("commands", _write, _read, max_growth=1024 * 2**20)
