"""Mutations of the package, each of which the simulation must find: `python -m tests.simulation.mutations NAME`.

A mutation is applied to a copy of the package, and seeds are run against the copy until one fails.
"""

# ruff: noqa: T201  the command prints its result

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

from tests.simulation.scenario import run

ROOT = Path(__file__).parents[2]
SEEDS = 3000


class NoMatchError(Exception):
    """The code that a mutation changes is missing, or exists more than once."""


@frozen
class Mutation:
    """In a function of the package, `old` becomes `new`. White space in `old` matches any white space.

    - `breaks`: the guarantee. `where`: the file and the qualified name of the function, "_record.py:commit".
    - `python`: the version from which the mutation breaks anything.
    """

    breaks: str
    where: str
    old: str
    new: str
    python: tuple[int, int] = (3, 11)

    @property
    def file(self) -> str:
        """Return the path of the file within the package."""
        return self.where.split(":")[0]

    def apply(self, source: str) -> str:
        """Return the changed source."""
        lines = source.splitlines(keepends=True)
        first, last = self._lines(ast.parse(source))
        function = "".join(lines[first:last])
        pattern = r"\s+".join(re.escape(word) for word in self.old.split())
        found = re.findall(pattern, function)
        if len(found) != 1:
            raise NoMatchError(f"{self.where} has {len(found)} times: {self.old}")
        changed = re.sub(pattern, lambda _match: self.new, function)
        return "".join([*lines[:first], changed, *lines[last:]])

    def _lines(self, tree: ast.Module) -> tuple[int, int]:
        node: ast.AST = tree
        for name in self.where.split(":")[1].split("."):
            found = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == name]
            if len(found) != 1:
                raise NoMatchError(f"{self.file} has {len(found)} times: {name}")
            node = found[0]
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert node.end_lineno is not None
        return node.lineno - 1, node.end_lineno


MUTATIONS = {
    "await-the-renewal": Mutation("G5", "_refresher.py:Refresher._join", "await waiter", "await task"),
    "renew-for-each-caller": Mutation(
        "G1", "_refresher.py:Refresher._in_flight", "return self._task if", "return None if"
    ),
    "raise-one-exception": Mutation(
        "G1",
        "_refresher.py:_error_of",
        "return error_from(backoff.failure, retry_after=max(0.0, backoff.not_before - now))",
        'return globals().setdefault("_only", error_from(backoff.failure))',
    ),
    "create-tasks-by-the-factory": Mutation(
        "G1",
        "_tasks.py:start",
        "asyncio.Task(work, loop=asyncio.get_running_loop(), name=name, context=Context())",
        "asyncio.get_running_loop().create_task(work, name=name, context=Context())",
        python=(3, 12),
    ),
    "lose-the-new-refresh-token": Mutation("G1", "_record.py:commit", "refresh=event.refresh", "refresh=None"),
    "serve-to-the-end": Mutation(
        "G2", "_state.py:State.usable", "now < current.moments.expired_from", "now < current.moments.ends_at"
    ),
    "count-from-the-arrival": Mutation("G2", "_renewal.py:Renewer._commit", "sent_at=sent_at,", "sent_at=arrived_at,"),
    "keep-records-by-the-wall-clock": Mutation(
        "G2", "stores/_memory.py:MemorySlot.__init__", "self._now = clock.monotonic", "self._now = clock.utc"
    ),
    "take-a-token-within-its-leeway": Mutation(
        "G2",
        "_renewal.py:Renewer._commit",
        "if not is_usable(policy, lifetime=lifetime, remaining=commit.remaining):",
        "if commit.remaining <= 0:",
    ),
    "never-schedule-after-a-failure": Mutation(
        "G3",
        "_refresher.py:Refresher._on_task_done",
        "self._schedule(at_least=CANCELLED_PAUSE if self._was_cancelled else MIN_DELAY)",
        "if self._state.backoff is None: self._schedule()",
    ),
    "show-failures": Mutation(
        "G4",
        "_refresher.py:Refresher.get",
        "return current.token",
        "if state.active_backoff(now) is not None:\n                    raise _error_of(state.backoff, now)\n"
        "                return current.token",
    ),
    "grant-a-refresh-token-that-may-be-used": Mutation(
        "G6", "_record.py:claim", "record.refresh if record.claim_id is None else None", "record.refresh"
    ),
    "give-back-a-refresh-token-that-may-be-used": Mutation(
        "G6", "_renewal.py:Renewer._call_and_end", "refresh if is_unused else None", "refresh"
    ),
    "back-off-after-a-rejected-refresh-token": Mutation(
        "G6",
        "_renewal.py:Renewer._call_and_end",
        'refresh is not None and result.kind == "credentials"',
        "refresh == b''",
    ),
    "throttle-the-api-key-after-a-rejected-refresh-token": Mutation(
        "G6",
        "_refresher.py:Refresher._renew",
        "self._emit(events.RefreshTokenRejected(cause=outcome.failure.message)) "
        "request = evolve(request, may_be_throttled=False)",
        "self._emit(events.RefreshTokenRejected(cause=outcome.failure.message))",
    ),
    "forget-what-was-sent": Mutation(
        "G6",
        "stores/_private.py:PrivateRecord.use_refresh",
        "is_old or sent in self._sent",
        "is_old",
    ),
    "forget-the-newest-commit": Mutation(
        "G6",
        "stores/_private.py:PrivateRecord.use_refresh",
        "is_old or sent in self._sent",
        "sent in self._sent",
    ),
    "call-without-a-backoff": Mutation(
        "G7",
        "_renewal.py:Renewer._failed",
        "backoff_after(failure, failures=failures + 1, jitter=self.jitter())",
        "0.0",
    ),
    "ignore-retry-after": Mutation(
        "G7",
        "_policy.py:backoff_after",
        "return max(bound * jitter, min(failure.retry_after or 0.0, MAX_RETRY_AFTER))",
        "return bound * jitter",
    ),
    "try-a-rejected-key-by-timer": Mutation(
        "G7", "_state.py:State.renewal_due", "if not self.backoff.failure.retryable:", "if self.backoff is None:"
    ),
    "forget-the-throttle-of-401s": Mutation(
        "G7", "_record.py:claim", "if throttle_left > 0:", "if throttle_left > 1e9:"
    ),
    "round-the-longest-backoff-away": Mutation(
        "G7",
        "_record.py:_ahead",
        "return max(0.0, min(ahead, longest)) if ahead <= longest + CLOCK_TOLERANCE else 0.0",
        "return max(0.0, ahead) if ahead <= longest else 0.0",
    ),
    "date-the-outage-from-the-last-answer": Mutation(
        "G7",
        "_renewal.py:Renewer._failed",
        "held.asked_at - granted.failing_for if failures",
        "failed_at - granted.failing_for if failures",
    ),
    "count-failures-before-anothers-success": Mutation(
        "G7",
        "_record.py:RenewalRequest.own_failures_count",
        "return granted.committed_at is None or granted.committed_at <= self.last_commit_at",
        "return True",
    ),
    "fire-for-an-expired-token": Mutation(
        "G7",
        "_refresher.py:Refresher._on_timer",
        "if due is None or now < due:",
        "if due is None or now < due or self._state.usable(now) is None:",
    ),
    "deny-shorter-lived-tokens-to-rejected-callers": Mutation(
        "G7", "_record.py:RenewalRequest.should_adopt", "or self.rejected:", "or False:"
    ),
    "show-foreign-texts": Mutation(
        "G9",
        "_errors.py:_class_text",
        "{clean_text(type(error).__name__, *secrets)}",
        "{error}",
    ),
    "close-without-waking": Mutation("G11", "_refresher.py:Refresher.close", "self._wake()", "pass"),
    "close-without-cancelling-the-timer": Mutation("G11", "_refresher.py:Refresher.close", "self._schedule()", "pass"),
    "close-without-cancelling": Mutation("G11", "_refresher.py:Refresher.close", "task.cancel()", "pass"),
    "serve-after-the-close": Mutation(
        "G11",
        "_state.py:State.close",
        "self.current = self.token = self.backoff = None self.fresh_until = self.suits_until = NEVER",
        "self.current = self.backoff = None",
    ),
    "commit-without-the-claim": Mutation(
        "G12", "_record.py:commit", "if record.claim_id != event.id:", "if record.claim_id == '':"
    ),
    "keep-the-failure-of-a-lost-claim": Mutation(
        "G12",
        "_renewal.py:Renewer._release",
        "return _adopted(request, ended, failed_at) or failed",
        "return failed",
    ),
    "never-push-a-commit": Mutation("G12", "stores/_memory.py:MemorySlot.on_change", "self._on_commit()", "pass"),
}


def find(mutation: Mutation, *, seeds: int, jobs: int) -> str | None:
    """Run seeds against the mutated package; return the first violation that the package itself does not have."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "apivideo_auth", Path(place, "apivideo_auth"))
        for package in ("simulation", "support"):
            shutil.copytree(ROOT / "tests" / package, Path(place, "tests", package))
        target = Path(place, "apivideo_auth", mutation.file)
        target.write_text(mutation.apply(target.read_text()))
        first = 0
        while first < seeds:
            numbers = f"--first {first} --seeds {seeds - first} --jobs {jobs}".split()
            command = [sys.executable, "-m", "tests.simulation", *numbers]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return None
            lines = done.stdout.splitlines()
            failed = [index for index, line in enumerate(lines) if " FAILED: " in line]
            if not failed:
                return done.stderr[-1000:]
            seed = int(lines[failed[0]].split()[1])
            if not run(seed).violations:
                return f"seed {seed}: {lines[failed[0] + 1].strip()}"
            first = seed + 1
    return None


def main() -> int:
    """Run the command; return its exit code: 1 if a mutation was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; by default all")
    parser.add_argument("--list", action="store_true", help="print their names")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="run at most so many")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.names) - MUTATIONS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    missed = 0
    for name in options.names or MUTATIONS:
        mutation = MUTATIONS[name]
        if options.list:
            print(f"{mutation.breaks:4} {name}")
            continue
        if sys.version_info < mutation.python:
            print(f"{mutation.breaks:4} {name}: breaks nothing before Python {'.'.join(map(str, mutation.python))}")
            continue
        found = find(mutation, seeds=options.seeds, jobs=options.jobs)
        missed += found is None
        print(f"{mutation.breaks:4} {name}: {found or 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
