"""Sealing: only the same key, account and part open what was encrypted."""

import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._secrets import MASK, SecretBytes
from apivideo_auth.stores._encrypted import Cipher

API_KEY = "made-up-api-key"
TOKEN = b"made-up-access-token"
ENCRYPTED_BY_THE_FIRST_RELEASE = (
    "01dc14d6c0bdc90b050091f5409c1c14caecdd1d166f688bc0a04083fbc70248ba5f48e593f7e34f8c26330778eeb20613"
)


@pytest.fixture
def cipher() -> Cipher:
    """The cipher of an account."""
    return Cipher(API_KEY, "account")


@given(st.binary(max_size=2000), st.sampled_from(["access", "refresh"]))
def test_what_was_sealed_opens(plain, part):
    """Whoever has the same API key and account gets back what was encrypted."""
    encrypted = Cipher(API_KEY, "account").encrypt(part, plain)
    assert Cipher(API_KEY, "account").decrypt(part, encrypted) == plain


def test_nothing_is_readable_in_a_seal(cipher):
    """The token is not in what is stored, and the same token never looks the same twice."""
    first, second = cipher.encrypt("access", TOKEN), cipher.encrypt("access", TOKEN)
    assert TOKEN not in first
    assert first != second
    assert len(first) == 1 + 12 + len(TOKEN) + 16


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (Cipher("another-api-key", "account"), "access"),
        (Cipher(API_KEY, "another account"), "access"),
        (Cipher(API_KEY, "account"), "refresh"),
        (Cipher(API_KEY, ""), "access"),
        (Cipher(API_KEY, "accountaccess"), "access"),
        (Cipher(API_KEY + " ", "account"), "access"),
    ],
)
def test_nothing_opens_in_anothers_place(cipher, other, part):
    """Another API key, another account and the other part are each refused: nothing can be swapped."""
    with pytest.raises(TokenStoreError, match="cannot be decrypted"):
        other.decrypt(part, cipher.encrypt("access", TOKEN))


def test_a_name_does_not_run_into_the_part(cipher):
    """An account whose name ends like a part's does not share seals with the shorter name."""
    encrypted = Cipher(API_KEY, "a").encrypt("access", TOKEN)
    with pytest.raises(TokenStoreError):
        Cipher(API_KEY, "aacc").decrypt("access", encrypted)


def test_every_changed_bit_is_found(cipher):
    """Not one bit of a seal can be changed: not the version, the nonce, the content or the tag."""
    encrypted = cipher.encrypt("access", TOKEN)
    for position in range(len(encrypted)):
        for bit in range(8):
            altered = bytearray(encrypted)
            altered[position] ^= 1 << bit
            with pytest.raises(TokenStoreError):
                cipher.decrypt("access", bytes(altered))


def test_every_shorter_or_longer_seal_is_refused(cipher):
    """A seal that was cut, anywhere, or added to, cannot be decrypted; nor does no seal at all."""
    encrypted = cipher.encrypt("access", TOKEN)
    for length in range(len(encrypted)):
        with pytest.raises(TokenStoreError):
            cipher.decrypt("access", encrypted[:length])
    with pytest.raises(TokenStoreError):
        cipher.decrypt("access", encrypted + b"\x00")


@given(st.binary(max_size=100))
def test_no_bytes_at_all_break_the_opening(data):
    """Whatever somebody puts into a store, it is refused with a `TokenStoreError`."""
    with pytest.raises(TokenStoreError, match="the stored refresh token cannot be decrypted"):
        Cipher(API_KEY, "account").decrypt("refresh", data)


def test_any_text_can_be_a_key_and_a_name():
    """Keys and names need not be ASCII, nor even proper Unicode."""
    cipher = Cipher("clé \ud800", "nom \ud800")
    assert cipher.decrypt("access", cipher.encrypt("access", TOKEN)) == TOKEN


def test_nothing_secret_is_shown(cipher):
    """Neither the cipher, nor what it opens, nor a traceback that captures locals shows a secret."""
    encrypted = cipher.encrypt("access", TOKEN)
    decrypted = cipher.decrypt("access", encrypted)
    assert isinstance(decrypted, SecretBytes)
    assert repr(decrypted) == f"b'{MASK}'"
    assert API_KEY not in repr(cipher)
    with pytest.raises(TokenStoreError) as caught:
        cipher.decrypt("refresh", encrypted)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert API_KEY not in shown
    assert TOKEN.decode() not in shown


def test_a_seal_of_the_first_version_opens_for_ever(cipher):
    """What an earlier release has encrypted is decrypted: the derivation, the layout and the names stay as they are."""
    encrypted = bytes.fromhex(ENCRYPTED_BY_THE_FIRST_RELEASE)
    assert cipher.decrypt("access", encrypted) == TOKEN


def test_missing_cryptography_says_what_to_install(monkeypatch):
    """Who has not installed the optional part is told at construction which one it is."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[file\].*apivideo-auth\[redis\]") as caught:
        Cipher(API_KEY, "account")
    assert caught.value.name == "cryptography"
