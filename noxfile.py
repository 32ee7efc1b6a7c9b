"""Packaging, testing and quality automation with nox (https://nox.thea.codes) on uv.

The two commands of a fresh machine:
>>> pip install "nox[uv]" && nox -s quickstart
>>> nox -s test

Everything else:
>>> nox --list
>>> nox -s lint check test
>>> nox -s test -- tests/eva_coralbay/data -k spacing
"""

import os
import pathlib
import shutil

import nox

PYTHON_VERSIONS = ["3.10", "3.11", "3.12", "3.13"]
"""The Python versions that are supported."""

JSONARGPARSE_VERSIONS = [f"4.{minor}.*" for minor in range(41, 51)]
"""The versions of jsonargparse that `pyproject.toml` allows: each may read configs differently."""

NEED_ARGUMENTS = ("evidence", "gpu", "probe", "view_agreement", "zoo")
"""The benchmarks that need a file or a card, so they run by name only."""

LOCATIONS = "src", "tests", "benchmarks", "docs", "noxfile.py"
"""Where the Python code lies."""

CONFIGS = pathlib.Path("configs/vision/radiology")
"""Where the configs lie."""

CONFIG = CONFIGS / "online/segmentation/phantom.yaml"
"""The config of a short evaluation."""

QUICKSTART = pathlib.Path("quickstart")
"""Where the quickstart writes its data and its results."""

PRETRAINING_STEPS = 10
"""For how many steps the quickstart pre-trains: a minute or two, to show how, not to learn."""

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "check", "test"]


@nox.session
def fmt(session: nox.Session) -> None:
    """Formats the source code."""
    args = session.posargs or LOCATIONS
    _install_group(session, "lint")
    session.run("ruff", "check", "--fix-only", *args)
    session.run("ruff", "format", *args)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks the source code for stylistic and security violations."""
    args = session.posargs or LOCATIONS
    _install_group(session, "lint")
    session.run("ruff", "check", *args)
    session.run("ruff", "format", "--check", *args)
    session.run("yamllint", ".")
    session.run("hadolint", "Dockerfile")
    session.run("bandit", "-q", "-c", "pyproject.toml", "-r", "src", "benchmarks", "noxfile.py")


@nox.session
def check(session: nox.Session) -> None:
    """Checks the types of the source code."""
    _install_package(session, "typecheck")
    session.run("pyright", *session.posargs)


@nox.session
def test(session: nox.Session) -> None:
    """Runs the tests that take no more than minutes, on all cores."""
    _install_package(session, "test")
    session.run("pytest", "-n", "auto", "--dist", "loadfile", *session.posargs)


@nox.session(python=PYTHON_VERSIONS)
def test_pythons(session: nox.Session) -> None:
    """Runs the same tests on every supported Python version."""
    test(session)


@nox.session(python=PYTHON_VERSIONS[0], reuse_venv=False)
def test_lowest(session: nox.Session) -> None:
    """Runs the same tests with the lowest release of every dependency that is allowed."""
    session.install("--resolution", "lowest-direct", "-e", ".", *_list_group("test"))
    session.run("pytest", "-n", "auto", "--dist", "loadfile", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Runs the same tests, and fails if they cover less of the package than before."""
    _install_package(session, "test")
    session.run(
        "pytest", "-n", "auto", "--dist", "loadfile", "--cov", "--cov-report=term:skip-covered",
        *session.posargs,
    )  # fmt: skip


@nox.session
def docs(session: nox.Session) -> None:
    """Runs every command of the README and of `docs/`, and the notebook."""
    _install_package(session, "test")
    files = map(str, pathlib.Path("tests/eva_coralbay").glob("test_docs*.py"))
    session.run("pytest", "-m", "", *files, *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Builds the documentation into `build/site`; `nox -s site -- serve` shows it as you write."""
    _install_group(session, "docs")
    # the theme announces its successor at every build
    session.env["NO_MKDOCS_2_WARNING"] = "1"
    session.run("mkdocs", *(session.posargs or ["build"]))


@nox.session
def test_slow(session: nox.Session) -> None:
    """Runs the tests that take longer or set up environments of their own."""
    _install_package(session, "test")
    session.install("nox[uv]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def nnunet(session: nox.Session) -> None:
    """Trains, predicts and scores with nnU-Net, which is installed beside the package; minutes."""
    _install_package(session, "test")
    session.install("nnunetv2>=2.8,<3")
    session.run("pytest", "-m", "slow", "tests/eva_coralbay/nnunet", *session.posargs)


@nox.session
@nox.parametrize("version", JSONARGPARSE_VERSIONS)
def configs(session: nox.Session, version: str) -> None:
    """Parses and instantiates every config on every jsonargparse that is allowed."""
    _install_package(session, "test")
    session.install(f"jsonargparse[omegaconf]=={version}")
    session.run("pytest", "-m", "slow", "-k", "parses_and_instantiates", *session.posargs)
    session.run("pytest", "tests/eva_coralbay/tasks/test_settings.py", *session.posargs)


@nox.session(reuse_venv=False)
def fresh_resolve(session: nox.Session) -> None:
    """Resolves every dependency afresh, trains for two steps, and builds every config.

    It fails when a new release of a dependency breaks the package for those who install it today.
    """
    session.install("--upgrade", "--refresh", ".", *_list_group("test"))
    _train_two_steps(session)
    session.run("pytest", "-m", "slow", "-k", "parses_and_instantiates")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feeds 4,350 malformed inputs to the readers in minutes; `-- msd --inputs 100` for less."""
    _install_package(session, "test")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Generates scans and compares two encoders by linear probes; two minutes on two cores."""
    session.install(".")
    session.log("1 of 4: generating 20 scans with known organs (seconds)")
    session.run("eva-coralbay", "phantom", str(QUICKSTART / "phantom"))
    session.log(
        "2 of 4: probing CoralBay's encoder with random weights. Until the first bar moves,"
    )
    session.log("        eva is being imported (10 to 30 s); then the scans are prepared.")
    _probe(session, "radiology/coralbay_random")
    session.log("3 of 4: probing no network at all, but the derivatives of the scans")
    no_network = '{"class_path": "eva_coralbay.evaluation.probe.encoders.GaussianDerivatives"}'
    _probe(session, "no_network", f"--model.init_args.encoder={no_network}")
    session.log("4 of 4: the table, and the label-efficiency curves of both in one picture")
    session.run("eva-coralbay", "results", str(QUICKSTART / "logs"))
    session.run("eva-coralbay", "curves", str(QUICKSTART / "logs"))
    session.log(
        "A random encoder may well lose to the derivatives. Trained weights have to beat both."
    )


@nox.session
def quickstart_pretraining(session: nox.Session) -> None:
    """Pre-trains an encoder on the scans of the quickstart, exports and probes it; minutes."""
    session.install(".")
    session.log("1 of 4: generating 20 scans with known organs (seconds)")
    session.run("eva-coralbay", "phantom", str(QUICKSTART / "phantom"))
    session.log("2 of 4: preparing those for training, and training for a minute or two")
    _pretrain(session, QUICKSTART / "phantom", QUICKSTART / "store")
    session.log("3 of 4: probing the encoder that was trained")
    session.env["CHECKPOINT"] = str(QUICKSTART / "encoder")
    _probe(session, "radiology/coralbay")
    session.log("4 of 4: the table")
    session.run("eva-coralbay", "results", str(QUICKSTART / "logs"))


@nox.session
def generate(session: nox.Session) -> None:
    """Writes what follows from tasks and models: configs, settings, cards, the docs' tables."""
    session.install("-e", ".")
    session.run("python", "-m", "tests.eva_coralbay.tasks.generate")
    session.run("python", "-m", "tests.eva_coralbay.models.generate")
    session.run("python", "-m", "tests.eva_coralbay.models.generate_cards")
    session.run("python", "-m", "tests.eva_coralbay.models.generate_work")
    session.run("python", "-m", "tests.eva_coralbay.leaderboard.generate")


@nox.session
def results(session: nox.Session) -> None:
    """Checks `leaderboard/results/` as a submission is checked, and builds the page in `site/`."""
    session.install(".")
    folder = "leaderboard/results"
    session.run("eva-coralbay", "leaderboard", "validate", folder)
    session.run("eva-coralbay", "leaderboard", "build", "--results", folder, "--out", "site")


@nox.session
def bench(session: nox.Session) -> None:
    """Runs the benchmarks: all for the CPU, or `nox -s bench -- gpu --help` for one."""
    _install_package(session, "test")
    name, *args = session.posargs or [""]
    scripts = sorted(pathlib.Path("benchmarks").glob(f"{name or '[!_]*'}.py"))
    if not name:
        scripts = [script for script in scripts if script.stem not in NEED_ARGUMENTS]
    if not scripts:
        session.error(f"There is no benchmark `{name}` in benchmarks/.")
    for script in scripts:
        session.run("python", str(script), *args)


@nox.session
def build(session: nox.Session) -> None:
    """Builds the source distribution and the wheel into `dist/` and checks that it imports."""
    session.install("build", "hatchling")
    session.run("python", "-m", "build", "--installer", "uv", "--outdir", "dist")
    wheel = max(pathlib.Path("dist").glob("*.whl"), key=os.path.getmtime)
    session.install("--reinstall-package", "eva-coralbay", str(wheel))
    session.run("eva-coralbay", "--help", silent=True)


def _probe(session: nox.Session, model: str, *options: str) -> None:
    """Probes an encoder on the phantoms."""
    env = {
        "MODEL_NAME": model,
        "IN_FEATURES": "12",
        "DATA_ROOT": str(QUICKSTART / "phantom"),
        "OUTPUT_ROOT": str(QUICKSTART / "logs" / model),
    }
    session.run("eva", "fit", "--config", str(CONFIGS / "probe/phantom.yaml"), *options, env=env)


def _pretrain(session: nox.Session, data: pathlib.Path, store: pathlib.Path) -> None:
    """Pre-trains an encoder on the phantoms that are not for validation, and exports it."""
    pretrain = ("eva-coralbay", "pretrain")
    validation = "*phantom_01[6-9]*"
    session.run(
        *pretrain, "prepare", str(data), "--out", str(store),
        "--spacing", "3", "3", "3", "--exclude", validation,
    )  # fmt: skip
    run, encoder = QUICKSTART / "pretraining", QUICKSTART / "encoder"
    env = {
        "STORE": str(store),
        "OUTPUT_ROOT": str(run),
        "MAX_STEPS": str(PRETRAINING_STEPS),
        "IN_FEATURES": "12",
    }
    session.run(*pretrain, "fit", "--config", str(CONFIGS / "pretraining/quickstart.yaml"), env=env)
    checkpoint = run / f"checkpoints/step={PRETRAINING_STEPS}.ckpt"
    # what an earlier call has left
    shutil.rmtree(encoder, ignore_errors=True)
    session.run(*pretrain, "export", str(checkpoint), "--out", str(encoder))


def _train_two_steps(session: nox.Session) -> None:
    """Trains a decoder on phantoms for two steps and scores it."""
    folder = pathlib.Path(session.create_tmp())
    session.run("eva-coralbay", "phantom", str(folder / "data"), "--cases", "3", "--val-cases", "1")
    env = {
        "MODEL_NAME": "radiology/coralbay_random",
        "IN_FEATURES": "12",
        "DATA_ROOT": str(folder / "data"),
        "OUTPUT_ROOT": str(folder / "logs"),
        "N_RUNS": "1",
        "MAX_STEPS": "2",
        "VAL_CHECK_INTERVAL": "2",
        "ROI_SIZE": "[64, 64, 64]",
        "N_DATA_WORKERS": "0",
    }
    session.run("eva", "fit", "--config", str(CONFIG), env=env)


def _list_group(group: str) -> list[str]:
    """Returns the requirements of a dependency group."""
    return list(nox.project.dependency_groups(nox.project.load_toml(), group))


def _install_group(session: nox.Session, group: str) -> None:
    """Installs a dependency group without the package."""
    session.install(*_list_group(group))


def _install_package(session: nox.Session, group: str) -> None:
    """Installs the package, editable, with a dependency group."""
    session.install("-e", ".", *_list_group(group))
