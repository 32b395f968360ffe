"""The OpenAPI description of what the emulator answers, shipped beside this module as `openapi.json`."""

import json
from functools import cache
from importlib.resources import files
from typing import cast


@cache
def description() -> dict[str, object]:
    """Return the description, read once."""
    text = files("apivideo_auth.emulator").joinpath("openapi.json").read_text("utf-8")
    return cast("dict[str, object]", json.loads(text))
