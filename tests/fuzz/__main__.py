"""Runs the campaign: prints the table of outcomes and each fault, and fails if there is one."""

import argparse
import sys
import time

from tests.fuzz import campaign, kinds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", nargs="*", help=f"all by default: {', '.join(kinds.KINDS)}")
    parser.add_argument(
        "--inputs", type=int, help="of each kind (default: 300; of whole commands 60 to 220)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, help="only the input with this number")
    arguments = parser.parse_args()
    chosen = [kinds.KINDS[name] for name in arguments.kind or kinds.KINDS]
    if arguments.number is not None:
        for kind in chosen:
            print(*campaign.run_numbers(kind, [arguments.number], seed=arguments.seed))
        return 0
    start = time.monotonic()
    outcomes = [
        outcome
        for kind in chosen
        for outcome in campaign.run(
            [kind], inputs=arguments.inputs or kind.inputs, seed=arguments.seed, report=_print_fault
        )
    ]
    print(campaign.tabulate(outcomes))
    print(f"{len(outcomes)} inputs in {time.monotonic() - start:.0f} s, seed {arguments.seed}")
    return int(any(one.outcome in campaign.FAULTS for one in outcomes))


def _print_fault(one: campaign.Outcome) -> None:
    if one.outcome in campaign.FAULTS:
        detail = one.detail.strip()[-1500:]
        print(f"{one.kind} --number {one.number}: {one.outcome}\n{detail}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
