"""Token sources that a test scripts."""

from datetime import UTC, datetime

from apivideo_auth import Token, TokenRejectedError

FAR = datetime(2099, 1, 1, tzinfo=UTC)


class Source:
    """Gives made-up tokens; a rejected one is replaced, as long as `fresh` are left."""

    def __init__(self, base_url: str | None = None, *, fresh: int = 1) -> None:
        if base_url is not None:
            self.base_url = base_url
        self.fresh = fresh
        self.current = Token("made-up-access-1", FAR, 1)
        self.rejected: list[int] = []

    async def get_token(self, *, rejected: Token | None = None) -> Token:
        if rejected is not None:
            self.rejected.append(rejected.generation)
            if rejected == self.current:
                if not self.fresh:
                    raise TokenRejectedError("no other yet", retry_after=1.0)
                self.fresh -= 1
                number = self.current.generation + 1
                self.current = Token(f"made-up-access-{number}", FAR, number)
        return self.current
