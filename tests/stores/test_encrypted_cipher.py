"""Encryption: only the same API key, account and part can decrypt."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_decrypting_returns_what_was_encrypted(plain, part):
    """Another cipher of the same API key and account decrypts the part."""
    encrypted = Cipher(API_KEY, "account").encrypt(part, plain)
    assert Cipher(API_KEY, "account").decrypt(part, encrypted) == plain


def test_a_token_is_not_readable(cipher):
    """The token is not contained in the result, and encrypting it twice gives two results."""
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
def test_parts_cannot_be_swapped(cipher, other, part):
    """A part cannot be decrypted with another API key, for another account or as the other part."""
    assert other.decrypt(part, cipher.encrypt("access", TOKEN)) is None


def test_a_name_does_not_run_into_the_part(cipher):
    """An account whose name ends like the name of a part is not confused with the shorter name."""
    encrypted = Cipher(API_KEY, "a").encrypt("access", TOKEN)
    assert Cipher(API_KEY, "aacc").decrypt("access", encrypted) is None


def test_every_changed_bit_is_found(cipher):
    """Not a single bit can be changed: of the version, the nonce, the content or the tag."""
    encrypted = cipher.encrypt("access", TOKEN)
    for position in range(len(encrypted)):
        for bit in range(8):
            altered = bytearray(encrypted)
            altered[position] ^= 1 << bit
            assert cipher.decrypt("access", bytes(altered)) is None


def test_no_other_length_can_be_decrypted(cipher):
    """A part that was truncated or extended cannot be decrypted, nor an empty one."""
    encrypted = cipher.encrypt("access", TOKEN)
    for length in range(len(encrypted)):
        assert cipher.decrypt("access", encrypted[:length]) is None
    assert cipher.decrypt("access", encrypted + b"\x00") is None


@given(st.binary(max_size=100))
def test_arbitrary_bytes_cannot_be_decrypted(data):
    """Arbitrary bytes count as missing."""
    assert Cipher(API_KEY, "account").decrypt("refresh", data) is None


def test_any_text_can_be_a_key_and_a_name():
    """Keys and names need not be ASCII, nor even valid Unicode."""
    cipher = Cipher("clé \ud800", "nom \ud800")
    assert cipher.decrypt("access", cipher.encrypt("access", TOKEN)) == TOKEN


def test_nothing_secret_is_shown(cipher):
    """The `repr` of the cipher and of its result shows no secret."""
    encrypted = cipher.encrypt("access", TOKEN)
    decrypted = cipher.decrypt("access", encrypted)
    assert isinstance(decrypted, SecretBytes)
    assert repr(decrypted) == f"b'{MASK}'"
    assert API_KEY not in repr(cipher)


def test_a_part_of_the_first_release_can_still_be_decrypted(cipher):
    """The key derivation, the layout and the names stay as they were in the first release."""
    encrypted = bytes.fromhex(ENCRYPTED_BY_THE_FIRST_RELEASE)
    assert cipher.decrypt("access", encrypted) == TOKEN


def test_missing_cryptography_says_what_to_install(monkeypatch):
    """Without the package the constructor raises `ImportError` with the command that installs it."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[file\].*apivideo-auth\[redis\]") as caught:
        Cipher(API_KEY, "account")
    assert caught.value.name == "cryptography"
