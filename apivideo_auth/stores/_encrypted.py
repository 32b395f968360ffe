"""Encryption: without the API key, nobody can read or forge a token that leaves the process.

AES-256-GCM with a random nonce. A fleet encrypts two parts per renewal, and a nonce is likely to repeat only after some
2**32 of them, which no API key lives to see. The key is derived from the API key with HKDF; it is not stretched, since
an API key is random and not a password.

    encrypted part = version (1 byte) | nonce (12 bytes) | ciphertext and tag

The version, the account's name and the part's name are authenticated along with the content, so that parts cannot be
swapped. An older ciphertext of the same part does decrypt: somebody who can write to a store can restore an old record.
"""

import os
from collections.abc import Callable
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
    if not store.needs_encryption:
        return store.open(account, clock=clock, on_commit=on_commit, on_damage=on_damage)
    cipher = Cipher(api_key, account)
    return EncryptedSlot(store.open(account, clock=clock, on_commit=on_commit, on_damage=on_damage), cipher)


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

    def decrypt(self, part: Part, encrypted: bytes) -> SecretBytes:
        """Return the content; raise `TokenStoreError` if `encrypt` of this account and part did not make it."""
        plain = self._decrypted(part, encrypted)
        if plain is None:
            # Raised outside of the handler: the library's error would be its context.
            raise TokenStoreError(
                f"the stored {part} token cannot be decrypted: "
                "it was altered, or encrypted with another API key or by another version"
            )
        return plain

    def _decrypted(self, part: Part, encrypted: bytes) -> SecretBytes | None:
        version, nonce, content = encrypted[:1], encrypted[1 : 1 + _NONCE_BYTES], encrypted[1 + _NONCE_BYTES :]
        if version != _VERSION or len(nonce) != _NONCE_BYTES:
            return None
        try:
            return SecretBytes(self._aead.decrypt(nonce, content, self._context(part)))
        except self._invalid_tag:
            return None

    def _context(self, part: Part) -> bytes:
        """Return the associated data; the length of the account's name separates it from the part's."""
        return _VERSION + len(self._account).to_bytes(8, "big") + self._account + part.encode()


def _encoded(text: str) -> SecretBytes:
    return SecretBytes(text.encode("utf-8", "surrogatepass"))


class EncryptedSlot:
    """Encrypts the tokens that go into a slot, and decrypts those that come out of it.

    A part that cannot be decrypted was altered, or was written without the API key. It is reported once, as
    `TokenStoreError`, and from then on it counts as missing, so that the account recovers: a claim ignores such an
    access token, such a refresh token leaves the record together with its claim, and the next commit replaces both.
    """

    def __init__(self, slot: Slot, cipher: Cipher) -> None:
        self._slot = slot
        self._cipher = cipher
        self._reported: SharedToken | None = None

    def __repr__(self) -> str:
        return f"<EncryptedSlot {self._slot!r}>"

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it has not expired."""
        encrypted = await self._slot.read()
        return None if encrypted is None or self._was_reported(encrypted) else self._decrypted(encrypted)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew."""
        answer = await self._slot.claim(event)
        if isinstance(answer, Changed) and self._was_reported(answer.token):
            answer = await self._slot.claim(evolve(event, seen=answer.token.version))
        if isinstance(answer, Changed):
            return Changed(token=self._decrypted(answer.token))
        if isinstance(answer, Granted) and answer.refresh is not None:
            try:
                return evolve(answer, refresh=self._cipher.decrypt("refresh", answer.refresh))
            except TokenStoreError:
                await self._slot.release(Release(id=event.id))
                raise
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
        """Return after a commit or release of another worker, or after `timeout` seconds."""
        await self._slot.changed(timeout)

    async def forget(self) -> None:
        """Delete the record."""
        await self._slot.forget()

    async def close(self) -> None:
        """Release the slot."""
        await self._slot.close()

    def _encrypted_refresh(self, refresh: bytes | None) -> bytes | None:
        return None if refresh is None else self._cipher.encrypt("refresh", refresh)

    def _ended(self, answer: EndAnswer) -> EndAnswer:
        """Decrypt the token of a lost claim's answer; one that cannot be decrypted counts as missing."""
        if not isinstance(answer, ClaimLost) or answer.token is None:
            return answer
        try:
            access = self._cipher.decrypt("access", answer.token.access)
        except TokenStoreError:
            return ClaimLost(token=None)
        return ClaimLost(token=evolve(answer.token, access=access))

    def _decrypted(self, token: SharedToken) -> SharedToken:
        try:
            return evolve(token, access=self._cipher.decrypt("access", token.access))
        except TokenStoreError:
            self._reported = token
            raise

    def _was_reported(self, token: SharedToken) -> bool:
        """Return whether this very token has been reported as one that cannot be decrypted."""
        reported = self._reported
        return reported is not None and (reported.version, reported.access) == (token.version, token.access)
