"""Sealing: what leaves the process is readable and writable only with the API key.

AES-256-GCM with a random nonce: a fleet seals two parts per renewal, so a nonce repeats only after some 2**32 of them,
which no key lives to see; and AES-GCM is there in every build of the library, restricted ones included. The key is
derived from the API key with HKDF, not stretched: an API key is random already, and no password.

    sealed = version (1 byte) | nonce (12 bytes) | ciphertext and tag

The version, the account's name and the part's name are authenticated along with the content, so nothing opens in
another's place. An older seal of the same part does open: whoever can write to a store can put back an old record.
"""

import os
from typing import Final, Literal, TypeAlias

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._secrets import SecretBytes

Part: TypeAlias = Literal["access", "refresh"]

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_PURPOSE: Final = b"apivideo-auth: the parts of a token record"


class Sealer:
    """Seals and opens the parts of one account's record.

    Raises `ImportError` at construction where the package cryptography is missing.
    """

    __slots__ = ("_account", "_cipher", "_invalid")

    def __init__(self, api_key: str, account: str) -> None:
        # Imported on use: sealing is for stores that leave the process, which are optional.
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
            from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415
        except ImportError:
            raise ImportError(
                "a store that other processes can read needs the package cryptography: "
                "pip install 'apivideo-auth[file]' or 'apivideo-auth[redis]'",
                name="cryptography",
            ) from None
        derivation = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=_PURPOSE)
        key = SecretBytes(derivation.derive(_encoded(api_key)))
        self._cipher = AESGCM(key)
        self._invalid = InvalidTag
        self._account = _encoded(account)

    def __repr__(self) -> str:
        return "<Sealer>"

    def seal(self, part: Part, plain: bytes) -> bytes:
        """Return `plain` in a form that only a `Sealer` of the same API key, account and part opens."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, self._context(part))

    def open(self, part: Part, sealed: bytes) -> SecretBytes:
        """Return what was sealed; raise `TokenStoreError` for what this account's `seal` did not make."""
        plain = self._opened(part, sealed)
        if plain is None:
            raise TokenStoreError(
                f"the stored {part} token does not open: it was altered, or sealed with another API key or version"
            )
        return plain

    def _opened(self, part: Part, sealed: bytes) -> SecretBytes | None:
        version, nonce, content = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if version != _VERSION or len(nonce) != _NONCE_BYTES:
            return None
        try:
            return SecretBytes(self._cipher.decrypt(nonce, content, self._context(part)))
        except self._invalid:
            return None

    def _context(self, part: Part) -> bytes:
        """Return the associated data; the name's length keeps name and part apart."""
        return _VERSION + len(self._account).to_bytes(8, "big") + self._account + part.encode()


def _encoded(text: str) -> SecretBytes:
    return SecretBytes(text.encode("utf-8", "surrogatepass"))
