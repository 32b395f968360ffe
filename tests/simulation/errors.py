"""What may be raised to a caller, and how."""

from collections.abc import Iterator

from attrs import define, field

from apivideo_auth import AuthError, TokenRejectedError, TokenStoreError


@define(eq=False)
class Errors:
    """The errors that callers got. They are kept, so that no two have the same identity."""

    seen: dict[int, BaseException] = field(factory=dict)

    def wrong_with(self, error: BaseException, *, rejected: bool, min_ttl: bool) -> Iterator[str]:
        """Say what is wrong with an error, for a caller that came with a rejected token, or with `min_ttl`."""
        if not isinstance(error, AuthError) and not (isinstance(error, ValueError) and min_ttl):
            yield "G13: which get_token does not raise"
        if isinstance(error, TokenStoreError) or (isinstance(error, TokenRejectedError) and not rejected):
            yield "G13: which is none of its business"
        if error.__cause__ is not None or error.__context__ is not None:
            yield "G1: which is chained"
        if id(error) in self.seen:
            yield "G1: which was another caller's already"
        self.seen[id(error)] = error
