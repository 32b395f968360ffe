"""The token store in Redis."""
