"""Strings that mask themselves, and fingerprints that tell them apart without showing them."""

from hashlib import blake2b
from typing import Any, NoReturn, Self

MASK = "***"
SHORTEST = 6


class Secret(str):
    """A string whose `repr` is masked and that refuses to be pickled.

    It is a real `str` everywhere else, so it can be sent. Tracebacks that capture locals, log records
    made with `%r` and the repr of whatever contains it show only the mask.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled; use str(secret) where it has to leave the process")


class SecretBytes(bytes):
    """Bytes whose `repr` is masked and that refuse to be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"b'{MASK}'"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled; use bytes(secret) where it has to leave the process")


def masked(value: Any) -> Any:  # noqa: ANN401  the type stays what it was
    """Return a string or bytes that mask themselves, and anything else as it is."""
    if isinstance(value, str):
        return Secret(value)
    return SecretBytes(value) if isinstance(value, bytes) else value


def fingerprint(*parts: str, size: int = 16) -> str:
    """Return `size` bytes in hexadecimal that name these strings and cannot be turned back into them."""
    digest = blake2b(digest_size=size, person=b"apivideo-auth")
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def redact(text: str, *secrets: str | None) -> str:
    """Return `text` with every one of `secrets` masked; what is too short to be one would only maim the text."""
    for secret in secrets:
        if secret and len(secret) >= SHORTEST:
            text = text.replace(secret, MASK)
    return text
