"""The pytest plugin, in projects of its users."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL))

TEST = """
    import os
    import pytest
    from apivideo_auth import TokenManager

    {mark}
    async def test_service(apivideo):
        async with TokenManager(apivideo.api_key, base_url=apivideo.url) as tokens, tokens.session() as session:
            async with session.get("/videos") as response:
                assert response.status == 200
        assert [call.path for call in apivideo.calls] == ["/auth/api-key", "/videos"]

    {mark}
    async def test_a_new_server_for_each_test(apivideo):
        assert apivideo.calls == []

    {mark}
    async def test_environment(apivideo_env, apivideo):
        assert apivideo_env is apivideo
        assert "APIVIDEO_TOKEN_STORE" not in os.environ
        async with TokenManager.from_env() as tokens:
            assert tokens.base_url == apivideo.url
            await tokens.get_token()
        assert [call.outcome for call in apivideo.calls] == ["authenticated"]

    def test_the_environment_is_restored():
        assert "APIVIDEO_API_KEY" not in os.environ
        assert os.environ["APIVIDEO_TOKEN_STORE"] == "file"
"""
OPTIONS = ("-W", "error", "-p", "no:looptime_plugin", "-p", "no:cacheprovider")
# Without this setting pytest-asyncio warns.
LOOP_SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of a developer who uses the command, without the ones that a test sets."""
    for name in ("APIVIDEO_API_KEY", "APIVIDEO_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APIVIDEO_TOKEN_STORE", "file")


def test_the_fixtures_work_in_auto_mode(pytester: pytest.Pytester) -> None:
    """A test gets a server of its own in its own event loop, and with `apivideo_env` an environment that names it."""
    pytester.makepyfile(TEST.format(mark=""))
    result = pytester.runpytest_subprocess("-o", "asyncio_mode=auto", *LOOP_SCOPE, *OPTIONS)
    result.assert_outcomes(passed=4)


def test_the_page_on_testing_works_in_strict_mode(pytester: pytest.Pytester) -> None:
    """The blocks of docs/testing.md pass as written, in pytest-asyncio's default mode."""
    for name in ("test_service.py", "test_outage.py", "test_mocked.py"):
        pytester.path.joinpath(name).write_text(BLOCKS[name], "utf-8")
    virtual = pytester.mkdir("virtual")
    for name in ("conftest.py", "test_virtual_time.py"):
        virtual.joinpath(name).write_text(BLOCKS[name], "utf-8")
    result = pytester.runpytest_subprocess(*LOOP_SCOPE, *OPTIONS)
    result.assert_outcomes(passed=sum(block.count("async def test_") for block in BLOCKS.values()))


def test_without_pytest_asyncio_the_fixtures_work_with_anyio(pytester: pytest.Pytester) -> None:
    """Where pytest-asyncio is not installed, the plugin loads, and its fixtures run under anyio's plugin."""
    pytester.makepyfile(pytest_asyncio="raise ImportError('as if not installed')")
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"
        """
    )
    pytester.makepyfile(TEST.format(mark="@pytest.mark.anyio"))
    result = pytester.runpytest_subprocess("-p", "no:asyncio", *OPTIONS)
    result.assert_outcomes(passed=4)


def test_the_plugin_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    """A test that uses no fixture of the plugin imports neither aiohttp nor the emulator."""
    pytester.makepyfile(
        """
        import sys

        def test_plain():
            assert "apivideo_auth.pytest_plugin" in sys.modules
            assert not {"aiohttp", "attrs", "cattrs", "apivideo_auth.emulator"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:aioresponses", "-p", "no:hypothesispytest", *LOOP_SCOPE, *OPTIONS)
    result.assert_outcomes(passed=1)
