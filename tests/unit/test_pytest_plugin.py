"""The pytest plugin, in projects of its users."""

import pytest

TEST = """
    import pytest
    from apivideo_auth import TokenManager

    {mark}
    async def test_service(apivideo):
        async with TokenManager(apivideo.api_key, base_url=apivideo.url) as tokens, tokens.session() as session:
            async with session.get("/videos") as response:
                assert response.status == 200
        assert [call.path for call in apivideo.calls] == ["/auth/api-key", "/videos"]

    {mark}
    async def test_of_its_own(apivideo):
        assert apivideo.calls == []
"""
SCOPES = (
    "-o",
    "asyncio_default_fixture_loop_scope=function",
    "-p",
    "no:looptime_plugin",
    "-W",
    "error",
    "-p",
    "no:cacheprovider",
)


@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "@pytest.mark.asyncio")])
def test_the_fixture_works_in_both_modes(pytester: pytest.Pytester, mode: str, mark: str) -> None:
    """A test asks for `apivideo` and gets a server of its own, in its own event loop."""
    pytester.makepyfile(TEST.format(mark=mark))
    result = pytester.runpytest_subprocess("-o", f"asyncio_mode={mode}", *SCOPES)
    result.assert_outcomes(passed=2)


def test_the_fixture_works_in_virtual_time(pytester: pytest.Pytester) -> None:
    """With a virtual loop and the server's clock a day of renewals takes no time."""
    pytester.makeconftest(
        """
        import looptime

        def pytest_asyncio_loop_factories(config, item):
            return {"virtual": looptime.new_event_loop}
        """
    )
    pytester.makepyfile(
        """
        import asyncio
        from apivideo_auth import TokenManager

        async def test_day(apivideo):
            async with TokenManager(apivideo.api_key, base_url=apivideo.url, clock=apivideo.clock) as tokens:
                await tokens.get_token()
                await asyncio.sleep(86_400)
                assert (await tokens.get_token()).remaining() > 30
            paths = [call.path for call in apivideo.calls]
            assert paths[0] == "/auth/api-key"
            assert set(paths[1:]) == {"/auth/refresh"}
            assert 29 <= len(paths) <= 33
        """
    )
    result = pytester.runpytest_subprocess("-o", "asyncio_mode=auto", *SCOPES)
    result.assert_outcomes(passed=1)


def test_the_plugin_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    """A test that does not ask for the fixture imports neither aiohttp nor the emulator."""
    pytester.makepyfile(
        """
        import sys

        def test_plain():
            assert "apivideo_auth.pytest_plugin" in sys.modules
            assert not {"aiohttp", "attrs", "cattrs", "apivideo_auth.emulator"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:aioresponses", "-p", "no:hypothesispytest", *SCOPES)
    result.assert_outcomes(passed=1)


def test_without_pytest_asyncio_nothing_breaks(pytester: pytest.Pytester) -> None:
    """In a project without pytest-asyncio the plugin loads and stays out of the way."""
    pytester.makepyfile("def test_plain(): pass")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:looptime_plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
