"""Check what was built: the wheel holds the package and its typing marker, and works installed alone.

python .ci/check_wheel.py dist
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

SMOKE = """
import asyncio, sys
import apivideo_auth
from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator

async def main():
    async with Emulator() as server, TokenManager(server.api_key, base_url=server.url) as tokens:
        async with tokens.session() as session, session.get("/videos") as response:
            assert response.status == 200

asyncio.run(main())
assert all(hasattr(apivideo_auth, name) for name in apivideo_auth.__all__)
"""


def main(folder: str) -> None:
    """Check the one wheel in a folder."""
    (wheel,) = Path(folder).glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names}
    version = wheel.name.split("-")[1]
    assert packages == {"apivideo_auth", f"apivideo_auth-{version}.dist-info"}, packages
    assert "apivideo_auth/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel.resolve()], check=True, cwd=place)
        subprocess.run([python, "-W", "error", "-I", "-c", SMOKE], check=True, cwd=place)
        alone = subprocess.run(
            [python, "-m", "apivideo_auth", "demo"], capture_output=True, text=True, check=False, cwd=place
        )
    assert alone.returncode == 1, alone
    assert "install apivideo-auth[cli]" in alone.stderr, alone
    sys.stdout.write(f"{wheel.name}: {len(names)} files, works alone\n")


if __name__ == "__main__":
    main(sys.argv[1])
