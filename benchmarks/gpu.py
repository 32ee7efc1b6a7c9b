"""Proves that everything works on a GPU and measures how fast, in one command and without network.

Sections, in this order:
    correctness  `pytest -m cuda`: each step against the CPU, with the largest difference.
    compile      `torch.compile` of the encoder: time to compile, and forward and backward against
                 eager.
    encoder      Time and memory against MONAI, with and without its flash attention, bf16.
    step         The whole step of self-distillation: samples and TFLOP a second, data seconds
                 against compute seconds.
    profile      Where the time of a step goes.
    batch        The largest batch that fits.
    probe        The dense probe on a task of the size of BTCV.
    experiment   Pre-trained encoders against random ones on real CT (needs `--data`).

The figures go to a JSON file after each section, so that a run that is cut short loses one section
only. `--toy` runs every section at a small size on the CPU: run it before you go to a GPU.
"""

import argparse
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

SECTIONS = ("correctness", "compile", "encoder", "step", "profile", "batch", "probe", "experiment")
"""The sections, in the order in which they run."""

_EXAMPLES = """examples:
  python benchmarks/gpu.py --toy               # everything, small, on the CPU
  python benchmarks/gpu.py --out gpu.json      # on a GPU; the experiment is left out
  python benchmarks/gpu.py --sections encoder step --out gpu.json
  python benchmarks/gpu.py --sections experiment --data .../data --seeds 5 --steps 500
  python benchmarks/gpu.py --sections experiment --cpu --recipes benchmarks/samples_seen.json \\
      --data .../data --seeds 1 --parallel 1    # hours, without a GPU
"""


def main() -> None:
    """Runs the sections and prints their tables."""
    arguments = _parse()
    report: dict[str, Any] = {"machine": _describe_machine(arguments)}
    print(json.dumps(report["machine"]), flush=True)
    for name in arguments.sections:
        print(f"\n## {name}\n", flush=True)
        started = time.perf_counter()
        try:
            report[name] = _section(name)(arguments)
        except Exception:  # a section that fails must not take the others with it
            report[name] = {"error": traceback.format_exc()}
            print(report[name]["error"], flush=True)
        print(f"\n{name}: {time.perf_counter() - started:.0f} s", flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(report, indent=1))
    failed = [name for name in arguments.sections if "error" in (report[name] or {})]
    if failed:
        sys.exit(f"Sections that failed: {', '.join(failed)}")


def _section(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    """Returns a section; its code and what that imports is loaded only when it runs."""
    if name == "correctness":
        return _check
    if name == "experiment":
        import _gpu_experiment

        return _gpu_experiment.run
    if name == "probe":
        import _gpu_probe

        return _gpu_probe.run
    import _gpu_speed

    return getattr(_gpu_speed, f"measure_{name}")


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the tests that compare the GPU with the CPU, and lists the largest differences."""
    import pytest

    tests = pathlib.Path(__file__).parents[1] / "tests" / "eva_coralbay" / "cuda"
    collector = _Collector()
    options = ["-q", "-m", "cuda", "-p", "no:cacheprovider", "-o", "addopts="]
    exit_code = pytest.main([str(tests), *options], plugins=[collector])
    print("| test | outcome | largest difference |\n|---|---|---|")
    for name, found in collector.tests.items():
        values = ", ".join(f"{key} {value}" for key, value in found.items() if key != "outcome")
        print(f"| {name} | {found['outcome']} | {values} |")
    return {"exit_code": int(exit_code), "tests": collector.tests}


class _Collector:
    """A plugin of pytest that keeps the outcome of each test and the differences it recorded."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.rpartition("::")[2]
            self.tests[name] = {"outcome": report.outcome, **dict(report.user_properties)}


def _describe_machine(arguments: argparse.Namespace) -> dict[str, Any]:
    is_gpu = arguments.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if is_gpu else "CPU",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "threads": torch.get_num_threads(),
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="which ones (default: all)")
    parser.add_argument("--toy", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--cpu", action="store_true", help="the experiment at its size, on the CPU")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file to write")
    parser.add_argument("--work", default="gpu-work", help="a folder for what is made on the way")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="the card's peak in bf16")
    parser.add_argument("--data", type=pathlib.Path, help="the folder of the real CT (experiment)")
    parser.add_argument("--seeds", type=int, default=5, help="encoders a condition (experiment)")
    parser.add_argument("--steps", type=int, default=500, help="of pre-training (experiment)")
    parser.add_argument("--parallel", type=int, default=5, help="trainings at a time (experiment)")
    parser.add_argument("--recipes", type=pathlib.Path, help="JSON of further recipes (experiment)")
    arguments = parser.parse_args()
    if arguments.cpu and arguments.sections != ["experiment"]:
        parser.error("--cpu is for --sections experiment alone: pass --toy to try the others")
    if not (arguments.toy or arguments.cpu or torch.cuda.is_available()):
        parser.error("there is no GPU: pass --toy to try every section on the CPU")
    arguments.device = "cpu" if arguments.toy or arguments.cpu else "cuda"
    arguments.sections = arguments.sections or [
        name for name in SECTIONS if name != "experiment" or arguments.data or arguments.toy
    ]
    return arguments


if __name__ == "__main__":
    main()
