"""The text of API keys: `tn_<tenant uuid, base62>_<key id>_<secret>`.

A key names its tenant so that the server can look its digest up under row level security: a forged
tenant finds no row (design §4). The prefix lets secret scanners recognise a leaked key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass
from uuid import UUID

from tenure_server.domain import TenantId

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_INDEX = {character: value for value, character in enumerate(_ALPHABET)}
_UUID_LENGTH = 22
_KEY_ID_LENGTH = 12
_SECRET_LENGTH = 43
"""Characters of base62 that carry 256 bits."""
MAX_LENGTH = 3 + _UUID_LENGTH + 1 + _KEY_ID_LENGTH + 1 + _SECRET_LENGTH


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def _token(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A parsed key; its repr hides the secret."""

    tenant: TenantId
    key_id: str
    secret: str

    @classmethod
    def generate(cls, tenant: TenantId) -> ApiKey:
        """Make a key with a fresh id and a 256-bit secret."""
        return cls(tenant, _token(_KEY_ID_LENGTH), _token(_SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """Return the parts of a key's text, None if it is not one."""
        parts = text.split("_")
        if len(text) > MAX_LENGTH or len(parts) != 4 or parts[0] != "tn":
            return None
        _, tenant, key_id, secret = parts
        if len(tenant) != _UUID_LENGTH or not key_id or not secret or not _INDEX.keys() >= set(tenant):
            return None
        number = 0
        for character in tenant:
            number = number * 62 + _INDEX[character]
        if number >= 1 << 128:
            return None
        return cls(TenantId(UUID(int=number)), key_id, secret)

    def text(self) -> str:
        """Return the key as the user keeps it."""
        return f"tn_{_base62(self.tenant.int, _UUID_LENGTH)}_{self.key_id}_{self.secret}"

    def digest(self) -> bytes:
        """Return what is stored; a fast hash is right for a 256-bit random secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, digest: bytes) -> bool:
        """Compare with a stored digest in constant time."""
        return hmac.compare_digest(self.digest(), digest)

    def __repr__(self) -> str:
        return f"ApiKey(tenant={self.tenant}, key_id={self.key_id!r}, secret='***')"
