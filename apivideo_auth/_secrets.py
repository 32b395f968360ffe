"""Strings that mask themselves, and functions that remove secrets from texts."""

from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, SupportsIndex, cast, overload

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MASK: Final = "***"
MIN_SECRET_LENGTH: Final = 6
"""Shorter strings are not masked in texts: they match by chance, and masking them would garble the text."""
MIN_PIECE_LENGTH: Final = 16
"""A piece of a secret this long is masked as well: a server may repeat only the beginning of a secret."""

_COLLECTIONS: Final[frozenset[Any]] = frozenset({tuple, list, set, frozenset})


class Secret(str):
    """A string whose `repr` is masked, and that cannot be pickled. Its pieces and its sums with strings are masked too.

    Everywhere else it is an ordinary `str`, so that it can be sent; `str()`, `format`, f-strings, `%` and `join` return
    the plain text. Tracebacks that capture locals, log records made with `%r`, and the repr of any object that contains
    it show only the mask, even if a tool shortens strings.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __getitem__(self, key: SupportsIndex | slice) -> "Secret":
        return Secret(super().__getitem__(key))

    def __add__(self, other: str) -> "Secret":
        return Secret(super().__add__(other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> "Secret":
        return Secret(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> "SecretBytes":
        """Return the encoded string, masked as well."""
        return SecretBytes(super().encode(encoding, errors))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled; use str(secret) if it has to leave the process")


class SecretBytes(bytes):
    """Bytes that behave like `Secret`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"b'{MASK}'"

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> "SecretBytes": ...
    def __getitem__(self, key: SupportsIndex | slice) -> "int | SecretBytes":
        return SecretBytes(super().__getitem__(key)) if isinstance(key, slice) else super().__getitem__(key)

    def __add__(self, other: "ReadableBuffer") -> "SecretBytes":
        return SecretBytes(super().__add__(other)) if isinstance(other, bytes | bytearray) else NotImplemented

    def __radd__(self, other: bytes) -> "SecretBytes":
        return SecretBytes(bytes.__add__(other, self)) if isinstance(other, bytes) else NotImplemented

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> Secret:
        """Return the decoded bytes, masked as well."""
        return Secret(super().decode(encoding, errors))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("SecretBytes cannot be pickled; use bytes(secret) if it has to leave the process")


def _masking(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  as the method that it calls
        return masked(method(*args, **kwargs))

    return call


for _name in (
    *("split", "rsplit", "splitlines", "partition", "rpartition"),
    *("strip", "lstrip", "rstrip", "removeprefix", "removesuffix"),
):
    setattr(Secret, _name, _masking(getattr(str, _name)))
    setattr(SecretBytes, _name, _masking(getattr(bytes, _name)))

# Messages about a value of a wrong type name the type that the user passed.
Secret.__name__, SecretBytes.__name__ = "str", "bytes"


def masked(value: Any) -> Any:  # noqa: ANN401  the type stays the same
    """Return a string or bytes as `Secret` or `SecretBytes`, also in containers, and any other value unchanged.

    An argument of a wrong type may contain a secret as well. A `bytearray` becomes `SecretBytes`; a `memoryview` stays,
    because its repr does not show its content.
    """
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, bytes | bytearray):
        return SecretBytes(value)
    kind = cast("Any", type(value))
    if kind is dict:
        return {masked(key): masked(item) for key, item in value.items()}
    if kind in _COLLECTIONS:
        return kind(masked(item) for item in value)
    return value


def fingerprint(*parts: str, size: int = 16) -> str:
    """Return a one-way digest of these strings: `size` bytes, in hexadecimal."""
    digest = blake2b(digest_size=size, person=b"apivideo-auth")
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def redact(text: str, *secrets: str) -> str:
    """Return `text` with every secret, and every longer piece of one, replaced by the mask."""
    for secret in secrets:
        text = _redact_one(text, secret)
    return text


def _redact_one(text: str, secret: str) -> str:
    size = min(len(secret), MIN_PIECE_LENGTH)
    if size < MIN_SECRET_LENGTH:
        return text
    pieces = {secret[start : start + size] for start in range(len(secret) - size + 1)}
    shown: list[str] = []
    position = 0
    while position < len(text):
        end = position
        # Overlapping pieces form one run, which is masked once.
        while text[end : end + size] in pieces:
            end += 1
        if end == position:
            shown.append(text[position])
            position += 1
        else:
            shown.append(MASK)
            position = end - 1 + size
    return "".join(shown)
