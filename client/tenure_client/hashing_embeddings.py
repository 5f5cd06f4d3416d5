"""Embeddings without a model: for demos and tests, and where searching for words and their parts will do."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from zlib import crc32

from langchain_core.embeddings import Embeddings

from tenure_client.errors import InvalidRequest

_WORD = re.compile(r"[^\W_]+")
_SYMBOL = re.compile(r"\S")
_PIECE = 3
_LONGEST_WORD = 64
_TELLING_LENGTH = 6
_WHOLE = 0.5
_KNOWN_WORDS = 4096
_MIXER = 0x9E3779B1


class HashingEmbeddings(Embeddings):
    """Embeds texts by hashing their words and the parts of their words.

    Texts that share words, or words of one stem, are near each other: "nursing" finds "a nurse". It knows
    nothing of meaning: "doctor" does not find "physician". It needs no model, no network and no other
    package, and makes the same vectors on every machine and in every process.

        store = TenureStore(saver.connection, index={"dims": 384, "embed": HashingEmbeddings()})

    A text without letters, digits and symbols gets a vector of zeros, which TenureStore leaves out.

    Args:
        dims: Length of the vectors. Shorter ones take other texts for near more often.

    Attributes:
        model: The version of the vectors; a part of the name under which the server knows the embedder.

    Raises:
        InvalidRequest: dims is not positive.
    """

    model = "1"

    def __init__(self, dims: int = 384) -> None:
        if dims < 1:
            raise InvalidRequest(f"dims is a positive number, not {dims!r}", metadata={"field": "dims"})
        self.dims = dims

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of length 1 for each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of length 1 of a text."""
        vector = [0.0] * self.dims
        for word, times in Counter(_words(text)).items():
            weight = _telling(word) * (1 + math.log(times))
            for hashed, share in _parts(word):
                # The high bits choose the place, the lowest one the sign: collisions cancel out on average.
                vector[hashed * self.dims >> 32] += weight * (share if hashed & 1 else -share)
        length = math.hypot(*vector)
        return [number / length for number in vector] if length else vector


def _words(text: str) -> Iterator[str]:
    folded = text.casefold()
    if not folded.isascii():
        decomposed = unicodedata.normalize("NFKD", folded)
        folded = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    words = _WORD.findall(folded) or _SYMBOL.findall(folded)
    return (word[:_LONGEST_WORD] for word in words)


def _telling(word: str) -> float:
    """Return how much a word says: in most alphabets the short ones are "the" and "is"."""
    if word.isdigit() or not word.isascii():
        return 1.0
    return min(1.0, (len(word) / _TELLING_LENGTH) ** 2)


@lru_cache(_KNOWN_WORDS)
def _parts(word: str) -> tuple[tuple[int, float], ...]:
    """Return hashes below 2**32 of a word and its parts, with their shares in it."""
    # Parts are of bytes, so that one letter of Chinese is a part, as three letters of English are.
    data = f"<{word}>".encode(errors="replace")
    parts = [data[start : start + _PIECE] for start in range(len(data) - _PIECE + 1)]
    share = 1 / math.sqrt(len(parts))
    return ((_hash(data), _WHOLE), *((_hash(part), share) for part in parts))


def _hash(data: bytes) -> int:
    return crc32(data) * _MIXER & 0xFFFFFFFF
