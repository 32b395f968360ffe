"""Sealing: only the same key, account and part open what was sealed."""

import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._seal import Sealer
from apivideo_auth._secrets import MASK, SecretBytes

API_KEY = "made-up-api-key"
TOKEN = b"made-up-access-token"
SEALED_BY_THE_FIRST_RELEASE = (
    "01dc14d6c0bdc90b050091f5409c1c14caecdd1d166f688bc0a04083fbc70248ba5f48e593f7e34f8c26330778eeb20613"
)


@pytest.fixture
def sealer() -> Sealer:
    """The sealer of an account."""
    return Sealer(API_KEY, "account")


@given(st.binary(max_size=2000), st.sampled_from(["access", "refresh"]))
def test_what_was_sealed_opens(plain, part):
    """Whoever has the same API key and account gets back what was sealed."""
    sealed = Sealer(API_KEY, "account").seal(part, plain)
    assert Sealer(API_KEY, "account").open(part, sealed) == plain


def test_nothing_is_readable_in_a_seal(sealer):
    """The token is not in what is stored, and the same token never looks the same twice."""
    first, second = sealer.seal("access", TOKEN), sealer.seal("access", TOKEN)
    assert TOKEN not in first
    assert first != second
    assert len(first) == 1 + 12 + len(TOKEN) + 16


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (Sealer("another-api-key", "account"), "access"),
        (Sealer(API_KEY, "another account"), "access"),
        (Sealer(API_KEY, "account"), "refresh"),
        (Sealer(API_KEY, ""), "access"),
        (Sealer(API_KEY, "accountaccess"), "access"),
        (Sealer(API_KEY + " ", "account"), "access"),
    ],
)
def test_nothing_opens_in_anothers_place(sealer, other, part):
    """Another API key, another account and the other part are each refused: nothing can be swapped."""
    with pytest.raises(TokenStoreError, match="does not open"):
        other.open(part, sealer.seal("access", TOKEN))


def test_a_name_does_not_run_into_the_part(sealer):
    """An account whose name ends like a part's does not share seals with the shorter name."""
    sealed = Sealer(API_KEY, "a").seal("access", TOKEN)
    with pytest.raises(TokenStoreError):
        Sealer(API_KEY, "aacc").open("access", sealed)


def test_every_changed_bit_is_found(sealer):
    """Not one bit of a seal can be changed: not the version, the nonce, the content or the tag."""
    sealed = sealer.seal("access", TOKEN)
    for position in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[position] ^= 1 << bit
            with pytest.raises(TokenStoreError):
                sealer.open("access", bytes(altered))


def test_every_shorter_or_longer_seal_is_refused(sealer):
    """A seal that was cut, anywhere, or added to, does not open; nor does no seal at all."""
    sealed = sealer.seal("access", TOKEN)
    for length in range(len(sealed)):
        with pytest.raises(TokenStoreError):
            sealer.open("access", sealed[:length])
    with pytest.raises(TokenStoreError):
        sealer.open("access", sealed + b"\x00")


@given(st.binary(max_size=100))
def test_no_bytes_at_all_break_the_opening(data):
    """Whatever somebody puts into a store, it is refused with a `TokenStoreError`."""
    with pytest.raises(TokenStoreError, match="the stored refresh token does not open"):
        Sealer(API_KEY, "account").open("refresh", data)


def test_any_text_can_be_a_key_and_a_name():
    """Keys and names need not be ASCII, nor even proper Unicode."""
    sealer = Sealer("clé \ud800", "nom \ud800")
    assert sealer.open("access", sealer.seal("access", TOKEN)) == TOKEN


def test_nothing_secret_is_shown(sealer):
    """Neither the sealer, nor what it opens, nor a traceback that captures locals shows a secret."""
    sealed = sealer.seal("access", TOKEN)
    opened = sealer.open("access", sealed)
    assert isinstance(opened, SecretBytes)
    assert repr(opened) == f"b'{MASK}'"
    assert API_KEY not in repr(sealer)
    with pytest.raises(TokenStoreError) as caught:
        sealer.open("refresh", sealed)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert API_KEY not in shown
    assert TOKEN.decode() not in shown


def test_a_seal_of_the_first_version_opens_for_ever(sealer):
    """What an earlier release has sealed is opened: the derivation, the layout and the names stay as they are."""
    sealed = bytes.fromhex(SEALED_BY_THE_FIRST_RELEASE)
    assert sealer.open("access", sealed) == TOKEN


def test_missing_cryptography_says_what_to_install(monkeypatch):
    """Who has not installed the optional part is told at construction which one it is."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[file\].*apivideo-auth\[redis\]") as caught:
        Sealer(API_KEY, "account")
    assert caught.value.name == "cryptography"
