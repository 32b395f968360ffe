"""The version, read by the build and sent in the origin headers."""

__version__ = "0.1.0"
