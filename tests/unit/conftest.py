"""What several tests of the parts share."""

from collections.abc import AsyncIterator

import pytest

from tests.support.doubles import LoopClock
from tests.support.refresher_bench import Bench, make_bench


@pytest.fixture
async def bench(clock: LoopClock) -> AsyncIterator[Bench]:
    """A refresher on a scripted renewer, which is closed in the end."""
    made = make_bench(clock)
    yield made
    await made.refresher.close(timeout=0)
    assert made.script.is_closed
