"""Visit every interleaving of three workers: `python -m tests.exhaustive`."""

import argparse
import sys

from tests.exhaustive.search import explore


def main() -> None:
    """Run the check, and print how much it visited."""
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=__doc__)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument(
        "--endless", action="store_true", help="let no token end, which leaves a small part of the states"
    )
    options = parser.parse_args()
    visited = explore(workers=options.workers, ends=not options.endless)
    sys.stdout.write(
        f"{visited.states:,} states, {visited.steps:,} steps, {visited.depth} deep: no promise is broken\n"
    )


if __name__ == "__main__":
    main()
