"""Mutations of the package, each of which the simulation has to catch: `python -m tests.simulation.mutations NAME`.

A mutation is applied to a copy of the package, and seeds are run against the copy until one fails.
"""

# ruff: noqa: T201  its output is the command's

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
SEEDS = 3000


class NoMatchError(Exception):
    """The code that a mutation changes is missing, or exists more than once."""


@frozen
class Mutation:
    """In `file`, `old` becomes `new`; any white space in `old` matches any other. `breaks` names the guarantee."""

    breaks: str
    file: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Return the changed source."""
        pattern = r"\s+".join(re.escape(word) for word in self.old.split())
        found = re.findall(pattern, source)
        if len(found) != 1:
            raise NoMatchError(f"{self.file} has {len(found)} times: {self.old}")
        return re.sub(pattern, lambda _match: self.new, source)


MUTATIONS = {
    "await-the-renewal": Mutation(
        "G5",
        "_refresher.py",
        "while not (task.done() or self._state.closed): await self._news(None)",
        "while not (task.done() or self._state.closed):\n            await task",
    ),
    "renew-for-each-caller": Mutation(
        "G1", "_refresher.py", "await self._end_of(task or self._start(", "await self._end_of(self._start("
    ),
    "heed-a-task-that-is-done": Mutation(
        "G7",
        "_refresher.py",
        "return self._task if self._task is not None and not self._task.done() else None",
        "return self._task",
    ),
    "commit-without-the-claim": Mutation(
        "G12",
        "_record.py",
        '"""Take the new tokens in, if the record still carries this claim.""" if record.claim_id != event.id:',
        "if record.claim_id == '':",
    ),
    "leave-the-refresh-token": Mutation(
        "G6", "_record.py", "evolve(record, refresh=None, claim_id=event.id", "evolve(record, claim_id=event.id"
    ),
    "give-back-an-unknown-refresh-token": Mutation(
        "G6",
        "_renewal.py",
        'return refresh if not failure.sent or failure.kind == "rate_limited" else None',
        "return refresh",
    ),
    "lose-the-new-refresh-token": Mutation(
        "G1",
        "_record.py",
        "refresh=event.refresh, claim_id=None, claim_until=0.0, not_before=0.0,",
        "refresh=None, claim_id=None, claim_until=0.0, not_before=0.0,",
    ),
    "pause-after-a-refused-refresh-token": Mutation(
        "G6", "_renewal.py", 'if path == "/auth/refresh" and failure.kind == "credentials":', "if path == '':"
    ),
    "serve-to-the-end": Mutation(
        "G2",
        "_state.py",
        "if current is not None and now < current.moments.expired_from else None",
        "if current is not None and now < current.moments.ends_at else None",
    ),
    "count-from-the-arrival": Mutation(
        "G2", "_renewal.py", "sent_at=sent_at, seconds=", "sent_at=arrived_at, seconds="
    ),
    "keep-records-by-the-wall-clock": Mutation(
        "G2", "stores/_memory.py", "self._now = clock.monotonic", "self._now = clock.utc"
    ),
    "never-arm-after-a-failure": Mutation(
        "G3",
        "_refresher.py",
        "self._task = None self._arm() self._wake()",
        "self._task = None\n        if self._state.pause is None:\n            self._arm()\n        self._wake()",
    ),
    "show-failures": Mutation(
        "G4",
        "_refresher.py",
        "if now >= current.moments.stale_from: self._renew_in_background(account, now)",
        "if state.paused(now) is not None:\n                raise state.pause.error(now)\n"
        "            if now >= current.moments.stale_from:\n                self._renew_in_background(account, now)",
    ),
    "raise-one-exception": Mutation(
        "G1",
        "_state.py",
        "return error_from(self.failure, retry_after=max(0.0, self.until - now))",
        'return globals().setdefault("_only", error_from(self.failure, retry_after=max(0.0, self.until - now)))',
    ),
    "call-without-a-pause": Mutation(
        "G7", "_renewal.py", "pause = backoff_after(failure, failures=failures, draw=account.draw())", "pause = 0.0"
    ),
    "ignore-retry-after": Mutation("G7", "_policy.py", "return max(bound * draw, wished)", "return bound * draw"),
    "try-a-refused-key-by-timer": Mutation(
        "G7",
        "_state.py",
        'if self.pause.failure.kind == "credentials": return None',
        'if self.pause.failure.kind == "":\n                return None',
    ),
    "forget-the-throttle-of-401s": Mutation("G7", "_record.py", "if spaced > 0:", "if spaced > 1e9:"),
    "close-without-waking": Mutation(
        "G11",
        "_refresher.py",
        "self._state.close() self._arm() self._wake()",
        "self._state.close()\n        self._arm()",
    ),
    "close-without-cancelling-the-timer": Mutation(
        "G11",
        "_refresher.py",
        "self._state.close() self._arm() self._wake()",
        "self._state.close()\n        self._wake()",
    ),
    "never-push-a-commit": Mutation("G12", "stores/_memory.py", "slot.tell()", "pass"),
    "close-without-cancelling": Mutation(
        "G11", "_refresher.py", "task.cancel() await asyncio.wait({task})", "await asyncio.wait({task})"
    ),
    "serve-after-the-close": Mutation(
        "G11",
        "_state.py",
        "self.current = self.token = self.pause = None self.fresh_until = FOREVER_AGO",
        "self.current = self.pause = None",
    ),
    "ask-again-for-the-permission": Mutation(
        "G6",
        "_refresher.py",
        "self._emit(events.RefreshTokenRejected(message=outcome.failure.message)) skip_throttle = True",
        "self._emit(events.RefreshTokenRejected(message=outcome.failure.message))",
    ),
    "fail-without-the-claim": Mutation(
        "G12",
        "_renewal.py",
        "if isinstance(ended, ClaimLost): # Somebody else",
        "if isinstance(ended, str):  # Somebody else",
    ),
    "round-the-longest-pause-away": Mutation(
        "G7",
        "_record.py",
        "return min(ahead, longest) if 0 < ahead <= longest + CLOCK_TOLERANCE else 0.0",
        "return ahead if 0 < ahead <= longest else 0.0",
    ),
    "date-the-outage-from-the-last-answer": Mutation(
        "G7",
        "_renewal.py",
        "granted.failing_for + (failed_at - claimed_at) if granted",
        "granted.failing_for if granted",
    ),
    "take-a-token-within-its-leeway": Mutation(
        "G7",
        "_renewal.py",
        "if arrived_at >= moments(account.policy, begins_at=sent_at, lifetime=lifetime, draw=1.0).expired_from:",
        "if remaining <= 0:",
    ),
    "show-foreign-texts": Mutation(
        "G9", "_errors.py", "the token call failed with {type(error).__name__}", "the token call failed with {error}"
    ),
}


def catch(mutation: Mutation, *, seeds: int, jobs: int) -> str | None:
    """Run seeds against the mutated package; return what the first one that fails says."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "apivideo_auth", Path(place, "apivideo_auth"))
        for package in ("simulation", "support"):
            shutil.copytree(ROOT / "tests" / package, Path(place, "tests", package))
        target = Path(place, "apivideo_auth", mutation.file)
        target.write_text(mutation.apply(target.read_text()))
        command = [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--jobs", str(jobs)]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stdout.splitlines()
    failed = [index for index, line in enumerate(lines) if " FAILED: " in line]
    if not failed:
        return done.stderr[-1000:]
    return f"{lines[failed[0]].split(' FAILED')[0]}: {lines[failed[0] + 1].strip()}"


def main() -> int:
    """Run the command; return its exit code: 1 if a mutation was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all of them by default")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="run so many at most")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.names) - MUTATIONS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    missed = 0
    for name in options.names or MUTATIONS:
        mutation = MUTATIONS[name]
        if options.list:
            print(f"{mutation.breaks:4} {name}")
            continue
        caught = catch(mutation, seeds=options.seeds, jobs=options.jobs)
        missed += caught is None
        print(f"{mutation.breaks:4} {name}: {caught or 'NOT CAUGHT'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
