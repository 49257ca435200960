"""The transformation ``text_hashing``: texts as counts of hashed character n-grams, without a tokeniser.

The hash is arithmetic of our own (FNV-1a over code points, then a finalizer), not Python's ``hash``: the same in every
process and on every machine. Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep

BLOCK = 2**20
"""Characters that are hashed at once."""
OFFSET = np.uint64(0xCBF29CE484222325)
PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(33)


class TextHashingConfig(PluginConfig):
    """How texts become numbers."""

    dimensions: int = Field(default=1024, gt=0, le=2**20, description="Length of a text's vector.")
    shortest: int = Field(default=2, gt=0, description="Characters of the shortest n-grams.")
    longest: int = Field(default=4, gt=0, le=16, description="Characters of the longest n-grams.")
    lowercase: bool = Field(default=True, description="Whether case is ignored.")
    max_length: int = Field(default=1000, gt=0, description="Characters of a text that count; the rest is cut off.")
    norm: Literal["l2", "none"] = Field(default="l2", description="l2: vectors of length 1; none: signed counts.")

    @model_validator(mode="after")
    def _range(self) -> TextHashingConfig:
        if self.shortest > self.longest:
            raise ValueError(f"shortest is {self.shortest}, above longest, {self.longest}")
        return self


class TextHashingStep(SideStep):
    """Hashes ``x`` of texts; see `TextHashingConfig`."""

    name = "text_hashing"

    def __init__(self, config: TextHashingConfig) -> None:
        super().__init__()
        self._config = config

    def changed(self, array: Array) -> Array:
        """Return float32 of shape (n, dimensions), from texts of shape (n,) or (n, 1); bytes are UTF-8."""
        texts = self._texts(array)
        out = np.zeros((len(texts), self._config.dimensions), np.float32)
        block = max(1, BLOCK // max(1, texts.dtype.itemsize // 4))
        for begin in range(0, len(texts), block):
            out[begin : begin + block] = self._hashed(texts[begin : begin + block])
        return out

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return ``tabular``."""
        return {"tabular": self.formed(*self.one_kind(given))}

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return a vector of floats; raise `ValueError` for what is no single text."""
        if tensor.size not in ([], [1]) or (tensor.dtype is not None and np.dtype(tensor.dtype).kind not in "USO"):
            raise ValueError(
                f"text_hashing needs one text, but x {kind!r} has size {tensor.size} and dtype {tensor.dtype}"
            )
        return tensor.model_copy(update={"size": [self._config.dimensions], "dtype": "float32"})

    def _texts(self, array: Array) -> Array:
        if array.dtype.kind not in "USO" or array.shape not in {(len(array),), (len(array), 1)}:
            raise ValueError(f"text_hashing needs texts of shape (n,), got {array.dtype} of shape {array.shape}")
        texts = array.reshape(-1)
        if texts.dtype.kind == "O" and len(texts) and isinstance(texts[0], bytes):
            texts = texts.astype(np.bytes_)
        if texts.dtype.kind == "S":
            texts = np.char.decode(texts, "utf-8", "replace")
        texts = texts.astype(np.str_)
        if texts.dtype.itemsize > 4 * self._config.max_length:
            texts = texts.astype(f"U{self._config.max_length}")
        return np.char.lower(texts) if self._config.lowercase else texts

    def _hashed(self, texts: Array) -> Array:
        width, dimensions = texts.dtype.itemsize // 4, self._config.dimensions
        if not len(texts) or not width:
            return np.zeros((len(texts), dimensions), np.float32)
        points = np.ascontiguousarray(texts).view(np.uint32).reshape(len(texts), width)
        first = np.arange(len(texts), dtype=np.intp)[:, None] * dimensions
        counts = np.zeros(len(texts) * dimensions, np.float32)
        hashes = np.full(points.shape, OFFSET)
        for length in range(1, min(self._config.longest, width) + 1):
            # The hashes of all n-grams grow by a character each time; a text ends where code points are 0.
            last = points[:, length - 1 :]
            hashes = (hashes[:, : last.shape[1]] ^ last) * PRIME
            if length >= self._config.shortest:
                mixed = (hashes ^ (hashes >> SHIFT)) * MIX
                mixed ^= mixed >> SHIFT
                there = last != 0
                places = (first + (mixed % np.uint64(dimensions)).astype(np.intp))[there]
                signs = np.where(mixed[there] >> np.uint64(63), np.float32(-1), np.float32(1))
                counts += np.bincount(places, signs, len(counts)).astype(np.float32)
        return self._normed(counts.reshape(len(texts), dimensions))

    def _normed(self, counts: Array) -> Array:
        if self._config.norm == "l2":
            lengths = np.linalg.norm(counts, axis=1, keepdims=True)
            counts /= np.where(lengths == 0, np.float32(1), lengths)
        return counts


class TextHashing(StepPlugin):
    """Texts as counts of hashed character n-grams (``text_hashing``)."""

    config_model = TextHashingConfig
    step = TextHashingStep
