"""Listing in pages."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from attrs import frozen

from apivideo_auth.emulator._problems import attribute_invalid

T = TypeVar("T")

_DEFAULT_SIZE: Final = 25
_MOST: Final = 100
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
"""Nine digits are more pages than anybody has, and fewer than make trouble anywhere."""


@frozen
class Page:
    """Which part of a list is asked for."""

    number: int
    size: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Page":
        """Return the page that a query asks for, or raise a 400."""
        return cls(
            number=_number(query, "currentPage", 1, None),
            size=_number(query, "pageSize", _DEFAULT_SIZE, _MOST),
        )

    def document(self, path: str, items: Sequence[T], show: Callable[[T], object]) -> dict[str, object]:
        """Return this page of `items` as the API shows it. A page behind the last one is empty."""
        start = (self.number - 1) * self.size
        data = [show(item) for item in items[start : start + self.size]]
        last = max(1, -(-len(items) // self.size))
        links = {
            "self": self.number,
            "first": 1,
            "previous": self.number - 1 if self.number > 1 else None,
            "next": self.number + 1 if self.number < last else None,
            "last": last,
        }
        return {
            "data": data,
            "pagination": {
                "currentPage": self.number,
                "pageSize": self.size,
                "pagesTotal": last,
                "itemsTotal": len(items),
                "currentPageItems": len(data),
                "links": [
                    {"rel": rel, "uri": f"{path}?currentPage={number}&pageSize={self.size}"}
                    for rel, number in links.items()
                    if number is not None
                ],
            },
        }


def _number(query: Mapping[str, str], name: str, default: int, most: int | None) -> int:
    text = query.get(name)
    if text is None:
        return default
    number = int(text) if _NUMBER.fullmatch(text) else 0
    if number < 1 or (most is not None and number > most):
        raise attribute_invalid(name, "an integer from 1" if most is None else f"an integer from 1 to {most}")
    return number
