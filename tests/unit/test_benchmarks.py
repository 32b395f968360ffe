"""The benchmarks run, and docs/performance.md shows their results. `make bench` measures; nothing here does."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import endpoint
from benchmarks.growth import managers, waiters
from benchmarks.peers import ApiVideoAuth
from benchmarks.report import METRICS, PAGE, RESULTS, page_with
from benchmarks.scenarios import Figures, Size, run

QUICK = Size(quick=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The endpoint, in a process of its own."""
    with endpoint.running() as url:
        yield url


def measure(scenario: str, url: str) -> Figures:
    return run(scenario, ApiVideoAuth, url, QUICK)


def test_the_page_shows_the_results() -> None:
    """The tables of docs/performance.md are those of benchmarks/results.json: `python -m benchmarks --draw`."""
    page = PAGE.read_text("utf-8")
    assert page_with(page, json.loads(RESULTS.read_text("utf-8"))) == page


def test_the_results_name_no_path_and_no_host() -> None:
    """benchmarks/results.json can be published: it has no path, no URL and no token."""
    assert not re.search(r"/\w+/|://|\bBearer\b|made-up-", RESULTS.read_text("utf-8"))


def test_the_plots_of_the_page_are_small_and_have_text() -> None:
    """Each plot is an SVG of less than 60 KB, without a date, whose text is text."""
    names = re.findall(r"\((assets/bench-[\w-]+\.svg)\)", PAGE.read_text("utf-8"))
    assert len(names) == 3
    for name in names:
        plot = Path(PAGE.parent, name).read_text("utf-8")
        assert len(plot) < 60_000
        assert "<text" in plot
        assert "dc:date" not in plot


def test_the_hot_path_is_measured_with_each_argument(url: str) -> None:
    """The hot path has a ratio for the plain call, and for those with `min_ttl` and `rejected`."""
    found = measure("hot", url)
    assert [*found] == ["hot", "hot min_ttl=60", "hot rejected=old"]


def test_cold_callers_make_one_call(url: str) -> None:
    """The endpoint counts one call, whatever the number of callers."""
    assert measure("cold", url)["cold calls"]["most"] == 1


def test_concurrent_401s_make_one_renewal(url: str) -> None:
    """The endpoint counts one renewal, and all requests succeed."""
    found = measure("rejected", url)
    assert found["rejected renewals"]["most"] == 1
    assert found["rejected succeeded"]["least"] == 100


@pytest.mark.parametrize("scenario", ["overhead", "memory"])
def test_the_other_scenarios_run(scenario: str, url: str) -> None:
    """They return figures that the report knows."""
    found = measure(scenario, url)
    assert found
    assert found.keys() <= METRICS.keys()


async def test_the_growth_is_measured_by_size() -> None:
    """There are figures for each number of waiters and of managers."""
    assert [*await waiters(QUICK)] == ["10", "100", "1000"]
    assert [*await managers(QUICK)] == ["1", "10", "100"]
