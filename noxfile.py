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

import nox

PYTHON_VERSIONS = ["3.10", "3.11", "3.12", "3.13"]
"""The Python versions that are supported."""

JSONARGPARSE_VERSIONS = [f"4.{minor}.*" for minor in range(40, 51)]
"""The versions of jsonargparse that `pyproject.toml` allows: each may read configs differently."""

LOCATIONS = "src", "tests", "benchmarks", "noxfile.py"
"""Where the Python code lies."""

CONFIG = pathlib.Path("configs/vision/radiology/online/segmentation/phantom.yaml")
"""The config of the quickstart."""

QUICKSTART = pathlib.Path("quickstart")
"""Where the quickstart writes its data and its results."""

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "check", "test"]


@nox.session
def fmt(session: nox.Session) -> None:
    """Formats the source code."""
    args = session.posargs or LOCATIONS
    _install_group(session, "lint")
    session.run("isort", *args)
    session.run("black", *args)
    session.run("ruff", "check", "--fix-only", *args)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks the source code for stylistic and security violations."""
    args = session.posargs or LOCATIONS
    _install_group(session, "lint")
    session.run("isort", "--check-only", *args)
    session.run("black", "--check", *args)
    session.run("ruff", "check", *args)
    session.run("yamllint", ".")
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
    session.run(
        "pytest", "-n", "auto", "--dist", "loadfile", *session.posargs, env={"OMP_NUM_THREADS": "1"}
    )


@nox.session(python=PYTHON_VERSIONS)
def test_pythons(session: nox.Session) -> None:
    """Runs the same tests on every supported Python version."""
    test(session)


@nox.session
def test_slow(session: nox.Session) -> None:
    """Runs the tests that take longer or set up environments of their own."""
    _install_package(session, "test")
    session.install("uv")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
@nox.parametrize("version", JSONARGPARSE_VERSIONS)
def configs(session: nox.Session, version: str) -> None:
    """Parses and instantiates every config on every jsonargparse that is allowed."""
    _install_package(session, "test")
    session.install(f"jsonargparse[omegaconf]=={version}")
    session.run("pytest", "-m", "slow", "-k", "parses_and_instantiates", *session.posargs)


@nox.session(reuse_venv=False)
def fresh_resolve(session: nox.Session) -> None:
    """Resolves every dependency afresh, and parses and instantiates every config.

    It fails when a new release of a dependency breaks the package for those who install it today.
    """
    dependencies = nox.project.dependency_groups(nox.project.load_toml(), "test")
    session.install("--upgrade", "--refresh", ".", *dependencies)
    session.run("eva", "fit", "--config", str(CONFIG), "--print_config", silent=True)
    session.run("pytest", "-m", "slow", "-k", "parses_and_instantiates")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Generates phantoms, runs `eva fit` on them and shows the result; minutes on two cores."""
    session.install(".")
    data = QUICKSTART / "phantom"
    session.run("eva-coralbay", "phantom", str(data))
    env = {"DATA_ROOT": str(data), "OUTPUT_ROOT": str(QUICKSTART / "logs")}
    session.run("eva", "fit", "--config", str(CONFIG), env=env)
    session.run("eva-coralbay", "results", str(QUICKSTART / "logs"))


@nox.session
def bench(session: nox.Session) -> None:
    """Runs the benchmarks: all of them, or `nox -s bench -- encoder --help` for one."""
    _install_package(session, "test")
    name, *args = session.posargs or [""]
    scripts = sorted(pathlib.Path("benchmarks").glob(f"{name or '[!_]*'}.py"))
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


def _install_group(session: nox.Session, group: str) -> None:
    """Installs a dependency group without the package."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml(), group))


def _install_package(session: nox.Session, group: str) -> None:
    """Installs the package, editable, with a dependency group."""
    session.install("-e", ".", *nox.project.dependency_groups(nox.project.load_toml(), group))
