"""Which fault hits which request."""

from random import Random

from attrs import define, field

from apivideo_auth.emulator._faults import Fault


@define
class _Armed:
    """A fault that has hits left, and its own generator, so that a seed gives the same hits each time."""

    fault: Fault
    random: Random
    hits: int = 0

    def hits_now(self, path: str) -> bool:
        """Tell whether this request is hit, and count the hit."""
        if not _reaches(self.fault.on, path) or self.random.random() >= self.fault.probability:
            return False
        self.hits += 1
        return True

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.hits >= self.fault.times


@define
class FaultPlan:
    """The injected faults, in the order of their injection."""

    _armed: list[_Armed] = field(factory=list[_Armed], init=False)

    def inject(self, fault: Fault) -> None:
        """Add a fault behind those that are there."""
        self._armed.append(_Armed(fault, Random(fault.seed)))  # noqa: S311  chance for tests, no secret

    def clear(self) -> None:
        """Take all faults away."""
        self._armed.clear()

    def hit(self, path: str) -> Fault | None:
        """Return the fault that hits a request of `path`, if one does."""
        for armed in self._armed:
            if armed.hits_now(path):
                if armed.spent:
                    self._armed.remove(armed)
                return armed.fault
        return None


def _reaches(on: str, path: str) -> bool:
    """Tell whether `path` is `on` or below it, by whole segments."""
    prefix = on.rstrip("/")
    return path == prefix or path.startswith(f"{prefix}/")
