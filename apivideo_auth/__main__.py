"""The command `apivideo-auth`, also `python -m apivideo_auth`."""

import sys


def main() -> None:
    """Run the command; without its optional packages, say what to install."""
    try:
        from apivideo_auth.cli import command  # noqa: PLC0415  optional
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"apivideo-auth: the command needs {error.name}; install apivideo-auth[cli]")
    command(prog_name="apivideo-auth")


if __name__ == "__main__":
    main()
