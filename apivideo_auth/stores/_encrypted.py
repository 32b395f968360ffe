"""Encryption: without the API key, nobody can read or forge a token that leaves the process.

AES-256-GCM with a random nonce. A fleet encrypts two parts per renewal, and a nonce is likely to repeat only after some
2**32 of them, which no API key lives to see. The key is derived from the API key with HKDF; it is not stretched, since
an API key is random and not a password.

    encrypted part = version (1 byte) | nonce (12 bytes) | ciphertext and tag

The version, the account's name and the part's name are authenticated along with the content, so that parts cannot be
swapped. An older ciphertext of the same part does decrypt: somebody who can write to a store can restore an old record.
"""

import os
import re
from collections.abc import Callable
from types import UnionType
from typing import Final, Literal, TypeAlias

from attrs import evolve

from apivideo_auth._clock import Clock
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import (
    Changed,
    Claim,
    ClaimAnswer,
    ClaimLost,
    Commit,
    EndAnswer,
    Granted,
    Release,
    SharedToken,
)
from apivideo_auth._secrets import SecretBytes, fingerprint
from apivideo_auth.stores._base import Slot, TokenStore

Part: TypeAlias = Literal["access", "refresh"]

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_TOKEN: Final = re.compile(rb"[\x21-\x7e]+")
_PURPOSE: Final = b"apivideo-auth: the parts of a token record"


def account_name(base_url: str, api_key: str) -> str:
    """Return the opaque name of an account, which reveals neither the URL nor the key."""
    return fingerprint(base_url, api_key)


def open_slot(  # noqa: PLR0913  they belong together, and are keywords
    store: TokenStore,
    *,
    base_url: str,
    api_key: str,
    clock: Clock,
    on_commit: Callable[[], None],
    on_damage: Callable[[str], None],
) -> Slot:
    """Return the slot of an account; its tokens are encrypted if the store needs it.

    Raises `ImportError` if encryption is needed and the package cryptography is missing.
    """
    account = account_name(base_url, api_key)
    cipher = Cipher(api_key, account) if store.needs_encryption else NoCipher()
    slot = store.open(account, clock=clock, on_commit=on_commit, on_damage=on_damage)
    return EncryptedSlot(slot, cipher, on_damage=on_damage)


class Cipher:
    """Encrypts and decrypts the parts of one account's record.

    Raises `ImportError` at construction if the package cryptography is missing.
    """

    __slots__ = ("_account", "_aead", "_invalid_tag")

    def __init__(self, api_key: str, account: str) -> None:
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415  an optional package
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  as above
            from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  as above
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415  as above
        except ImportError:
            raise ImportError(
                "a store that other processes can read needs the package cryptography: "
                "pip install 'apivideo-auth[file]' or 'apivideo-auth[redis]'",
                name="cryptography",
            ) from None
        derivation = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=_PURPOSE)
        key = SecretBytes(derivation.derive(_encoded(api_key)))
        self._aead = AESGCM(key)
        self._invalid_tag = InvalidTag
        self._account = _encoded(account)

    def __repr__(self) -> str:
        return "<Cipher>"

    def encrypt(self, part: Part, plain: bytes) -> bytes:
        """Return `plain` encrypted: only a `Cipher` of the same API key, account and part can decrypt it."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, plain, self._context(part))

    def decrypt(self, part: Part, encrypted: bytes) -> SecretBytes | None:
        """Return the content, or `None` if `encrypt` of this account and part did not make it."""
        version, nonce, content = encrypted[:1], encrypted[1 : 1 + _NONCE_BYTES], encrypted[1 + _NONCE_BYTES :]
        if version != _VERSION or len(nonce) != _NONCE_BYTES:
            return None
        try:
            return SecretBytes(self._aead.decrypt(nonce, content, self._context(part)))
        except self._invalid_tag:
            return None

    def _context(self, part: Part) -> bytes:
        """Return the associated data; the length of the account's name separates it from the part's."""
        return _VERSION + len(self._account).to_bytes(8) + self._account + part.encode()


class NoCipher:
    """Takes the place of a `Cipher` if nothing leaves the process: it only checks what comes out of a store."""

    def encrypt(self, _part: Part, plain: bytes) -> bytes:
        """Return `plain`."""
        return plain

    def decrypt(self, _part: Part, stored: bytes) -> SecretBytes | None:
        """Return the content, or `None` if it cannot be a token, which consists of visible ASCII characters."""
        # A store of the user may return anything.
        is_token = isinstance(stored, bytes) and _TOKEN.fullmatch(stored)
        return SecretBytes(stored) if is_token else None


def _check_answer(answer: object, kind: type | UnionType) -> None:
    """Raise `TokenStoreError` if a store, which may be the user's own, answers what the protocol does not provide."""
    if not isinstance(answer, kind):
        raise TokenStoreError(f"the token store answered with a {type(answer).__name__}")


def _encoded(text: str) -> SecretBytes:
    return SecretBytes(text.encode(errors="surrogatepass"))


class EncryptedSlot:
    """Encrypts the tokens that go into a slot, and decrypts those that come out of it.

    A part that cannot be decrypted was altered, or was written without the API key. It counts as missing at once: a
    claim ignores such an access token, and such a refresh token is not used. The next commit replaces both. It is
    reported once for each content. With a `NoCipher` the same holds for a part that cannot be a token.
    """

    def __init__(self, slot: Slot, cipher: Cipher | NoCipher, *, on_damage: Callable[[str], None]) -> None:
        self._slot = slot
        self._cipher = cipher
        self._on_damage = on_damage
        # The parts that were reported last.
        self._reported: dict[Part, bytes] = {}

    def __repr__(self) -> str:
        return f"<EncryptedSlot {self._slot!r}>"

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        token = await self._slot.read()
        if token is not None:
            _check_answer(token, SharedToken)
        return self._decrypted(token)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask for the right to renew. Raises `TokenStoreError` if the record has another foreign token each time."""
        answer = await self._slot.claim(event)
        _check_answer(answer, ClaimAnswer)
        if isinstance(answer, Changed):
            token = self._decrypted(answer.token)
            if token is not None:
                return Changed(token=token)
            answer = await self._slot.claim(evolve(event, seen=answer.token.version))
            _check_answer(answer, ClaimAnswer)
        if isinstance(answer, Changed):
            token = self._decrypted(answer.token)
            if token is None:
                raise TokenStoreError("the token store is in use by a program that does not have the API key")
            return Changed(token=token)
        if isinstance(answer, Granted) and answer.refresh is not None:
            return evolve(answer, refresh=self._decrypted_part("refresh", answer.refresh))
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        access = self._cipher.encrypt("access", event.access)
        return self._ended(
            await self._slot.commit(evolve(event, access=access, refresh=self._encrypted_refresh(event.refresh)))
        )

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        return self._ended(await self._slot.release(evolve(event, refresh=self._encrypted_refresh(event.refresh))))

    async def changed(self, timeout: float) -> None:
        """Return after a commit or release of any worker, or after `timeout` seconds."""
        await self._slot.changed(timeout)

    async def forget(self) -> None:
        """Delete the record."""
        await self._slot.forget()

    async def close(self) -> None:
        """Close the slot."""
        await self._slot.close()

    def _encrypted_refresh(self, refresh: bytes | None) -> bytes | None:
        return None if refresh is None else self._cipher.encrypt("refresh", refresh)

    def _ended(self, answer: EndAnswer) -> EndAnswer:
        _check_answer(answer, EndAnswer)
        return ClaimLost(token=self._decrypted(answer.token)) if isinstance(answer, ClaimLost) else answer

    def _decrypted(self, token: SharedToken | None) -> SharedToken | None:
        access = None if token is None else self._decrypted_part("access", token.access)
        return None if token is None or access is None else evolve(token, access=access)

    def _decrypted_part(self, part: Part, encrypted: bytes) -> SecretBytes | None:
        """Return the content of a part; report a part that cannot be decrypted."""
        content = self._cipher.decrypt(part, encrypted)
        if content is None and self._reported.get(part) != encrypted:
            self._reported[part] = encrypted
            if isinstance(self._cipher, NoCipher):
                problem = "is not a token and counts as missing: the record is damaged, or another program wrote it"
            else:
                problem = (
                    "cannot be decrypted and counts as missing: it was altered, or encrypted with another API key or "
                    "by another version"
                )
            self._on_damage(f"the {part} token in the token store {problem}")
        return content
