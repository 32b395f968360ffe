"""Settings of property tests that try the same examples on every run."""

from hypothesis import settings

repeatable = settings(derandomize=True)
