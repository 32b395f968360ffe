"""What all tests share: virtual time, a simulated service, and mocked responses that work with every aiohttp."""

import asyncio
import gc
import inspect
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import looptime
import pytest
from aioresponses import aioresponses
from coverage import Coverage
from hypothesis import HealthCheck, settings

from tests.support.doubles import LoopClock, Service
from tests.support.time_limits import set_operation_timeout

API_KEY = "made-up-api-key"
LONG_OPERATION_TIMEOUT = 20.0
ROOT = Path(__file__).parent.parent
# They run many times, or in many processes, what other tests run once.
UNMEASURED = (
    "tests/exhaustive/",
    "tests/fleet/",
    "tests/guarantees/test_g02",
    "tests/guarantees/test_g03",
    "tests/guarantees/test_g04",
    "tests/guarantees/test_g06_forgetful_store.py",
    "tests/guarantees/test_g07_no_storm.py",
    "tests/guarantees/test_g12_one_for_all.py",
    "tests/simulation/",
    "tests/unit/test_docs_blocks.py",
    "tests/unit/test_programs.py",
    "tests/unit/test_pytest_plugin.py::test_the_page",
    "tests/unit/test_pytest_plugin.py::test_without_pytest_asyncio",
    "tests/unit/test_recipes.py",
    "tests/unit/test_upload_example.py",
)
COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"  # its presence starts the measurement in a process

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


# A shell ignores Ctrl-C in what it runs in the background, and the programs that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that are marked slow")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: run in an event loop whose time is virtual")
    config.addinivalue_line("markers", "real_limits: keep the time limits of store operations")
    config.addinivalue_line("markers", "slow: takes long, and runs only with --slow")
    files = [name.partition("::")[0].removesuffix("/") for name in UNMEASURED]
    assert all(any(ROOT.glob(f"{name}*")) for name in files), "UNMEASURED names files that do not exist"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests, unless they are asked for."""
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of objects that stay until the end."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage during the tests in `UNMEASURED`, nor in their processes, which would take twice as long."""
    coverage = Coverage.current()
    if coverage is None or not item.nodeid.startswith(UNMEASURED):
        return (yield)
    configuration = os.environ.pop(COVERAGE_VARIABLE, None)
    coverage.stop()
    try:
        return (yield)
    finally:
        coverage.start()
        if configuration is not None:
            os.environ[COVERAGE_VARIABLE] = configuration


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Give tests that are marked `virtual_time` a loop whose time jumps from one timer to the next."""
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": looptime.new_event_loop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _long_operation_timeout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give store operations as much time as a busy machine needs, except where time is virtual."""
    if not any(request.node.get_closest_marker(name) for name in ("real_limits", "virtual_time")):
        set_operation_timeout(LONG_OPERATION_TIMEOUT, set_attribute=monkeypatch.setattr, set_item=monkeypatch.setitem)


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    """Answer the requests of aiohttp clients without a network."""
    with aioresponses() as mock:
        yield mock


@pytest.fixture(autouse=True)
def _aioresponses_knows_newer_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give mocked responses the argument that aiohttp requires since 3.14."""
    if "stream_writer" not in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
        return

    class Response(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            writer = Mock(output_size=0)
            super().__init__(*args, **{"stream_writer": writer} | kwargs)

    monkeypatch.setattr("aioresponses.core.ClientResponse", Response)


@pytest.fixture
async def clock() -> LoopClock:
    """A clock that follows the event loop's time, and that a test can set."""
    return LoopClock()


@pytest.fixture
async def service(clock: LoopClock) -> Service:
    """The two endpoints, simulated behind the protocol of `AuthenticationApi`."""
    return Service(clock)
