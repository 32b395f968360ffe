"""When renewals may come that 401s cause: 1, 2, 4 … 60 seconds apart, until tokens have lived 60 s unrefused."""

from attrs import define

JUST = 1e-6


@define(eq=False)
class Refusals:
    """The 401s of an account, and the calls that were made for them."""

    first_at: float | None = None
    unrefused_since: float = float("inf")
    _last_call: float = float("-inf")
    _spacing: float = 0.0

    def refused(self, now: float) -> None:
        """Note that the account's token was refused."""
        if self.first_at is None:
            self.first_at = now

    def replaced(self, now: float, *, first: bool) -> None:
        """Note that the account has a new token, perhaps its first."""
        if self.first_at is not None or first:
            self.unrefused_since = now
        self.first_at = None

    def trusted(self, now: float) -> bool:
        """Say whether tokens had lived unrefused for long before the latest one was refused."""
        first = now if self.first_at is None else self.first_at
        return first - self.unrefused_since >= 60.0

    def maybe_called(self, now: float) -> None:
        """Note a call that has another reason, and may still be for the 401."""
        if self.trusted(now):
            self._spacing = min(self._spacing, 1.0)

    def called(self, now: float) -> str | None:
        """Note a call for a 401; return what is wrong with it."""
        wrong = None
        if self.trusted(now):
            self._spacing = 1.0
        else:
            if now < self._last_call + self._spacing - JUST:
                wrong = f"comes {now - self._last_call:.3f} s after the last, not {self._spacing:g}"
            self._spacing = min(60.0, max(1.0, 2 * self._spacing))
        self._last_call = now
        return wrong
