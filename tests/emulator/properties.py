"""Settings of property tests that try the same examples on every run, on a slow machine too."""

from hypothesis import settings

repeatable = settings(derandomize=True, deadline=None, database=None)
