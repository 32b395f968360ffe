"""Run simulations: `python -m tests.simulation --seeds 1000`, or replay one: `--seed 7 --trace`."""

# ruff: noqa: T201  the command prints its result

import argparse
import contextlib
import itertools
import multiprocessing
import sys
import time

from tests.simulation.scenario import Report, run

TRACE_LINES = 60
"""How many lines of the trace are shown before the first violation of a seed."""


def main() -> int:
    """Run the command; return its exit code: 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="the number of processes")
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happened")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first seed that fails")
    options = parser.parse_args()
    if options.seed is not None:
        report = run(options.seed)
        show(report, whole=options.trace)
        return 1 if report.violations else 0
    seeds = range(options.first, options.first + options.seeds)
    return run_many(seeds, options.jobs, keep_going=options.keep_going)


def run_many(seeds: range, jobs: int, *, keep_going: bool) -> int:
    """Run many seeds and print the progress; return the exit code."""
    started, calls, requests, virtual, failed = time.perf_counter(), 0, 0, 0.0, 0
    with multiprocessing.Pool(jobs) if jobs > 1 else contextlib.nullcontext() as pool:
        reports = map(run, seeds) if pool is None else pool.imap(run, seeds, chunksize=4)
        for done, report in zip(itertools.count(1), reports, strict=False):
            calls, requests, virtual = calls + report.calls, requests + report.requests, virtual + report.seconds
            if report.violations:
                failed += 1
                show(report, whole=False, tail=0 if keep_going else TRACE_LINES)
                if not keep_going:
                    return 1
            if done % 500 == 0:
                print(f"{done} seeds, {done / (time.perf_counter() - started):.1f} a second", flush=True)
    took = time.perf_counter() - started
    print(
        f"{len(seeds)} seeds in {took:.1f} s ({len(seeds) / took:.1f} a second): {failed} failed; "
        f"{virtual / 86_400:.0f} virtual days, {calls} calls to the service, {requests} calls of get_token"
    )
    return 1 if failed else 0


def show(report: Report, *, whole: bool, tail: int = TRACE_LINES) -> None:
    """Print the outcome of a seed: the whole trace, or what led to the first violation."""
    if whole:
        print("\n".join(report.lines))
    elif report.violations and tail:
        first = next(index for index, line in enumerate(report.lines) if "VIOLATION" in line)
        print("\n".join(report.lines[max(0, first - tail) : first + 1]))
    verdict = "FAILED" if report.violations else "passed"
    figures = f"{report.calls} calls, {report.requests} requests for a token, {report.seconds:.0f} virtual s"
    print(f"seed {report.seed} {verdict}: {figures}")
    for violation in report.violations[:5]:
        print(f"  {violation}")
    if report.violations:
        print(f"replay: python -m tests.simulation --seed {report.seed} --trace", flush=True)


if __name__ == "__main__":
    sys.exit(main())
