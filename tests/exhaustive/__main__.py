"""Visit every interleaving of three workers: `python -m tests.exhaustive`."""

import argparse
import sys

from tests.exhaustive.search import explore


def main() -> None:
    """Run the check, and print how much it visited."""
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=__doc__)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--renewals", type=int, default=2, help="tokens that the server issues at most")
    parser.add_argument("--deaths", type=int, default=1, help="workers that die at most")
    options = parser.parse_args()
    visited = explore(workers=options.workers, renewals=options.renewals, deaths=options.deaths)
    sys.stdout.write(f"{visited.states:,} states, {visited.steps:,} steps, {visited.depth} deep: no invariant breaks\n")


if __name__ == "__main__":
    main()
