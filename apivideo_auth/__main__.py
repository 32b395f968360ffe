"""The command `apivideo-auth`, also `python -m apivideo_auth`."""

import sys


def main() -> None:
    """Run the command, or say what to install if its optional packages are missing."""
    try:
        from apivideo_auth import cli  # noqa: PLC0415  optional

        cli.main()
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"apivideo-auth: the command needs {error.name}; install apivideo-auth[cli]")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
