"""Events of an account for the tests of its failover."""

from apivideo_auth._record import Claim, Commit


def claimed(name: str, seen: str | None = None, *, throttled: bool = False) -> Claim:
    """Return a claim that has the name as its id."""
    return Claim(id=name, seen=seen, lease=15.0, may_be_throttled=throttled)


def committed(name: str) -> Commit:
    """Return the commit of a token of an hour that ends the claim."""
    return Commit(
        id=name,
        access=f"made-up-access-{name}".encode(),
        refresh=f"made-up-refresh-{name}".encode(),
        lifetime=3600.0,
        remaining=3600.0,
    )
