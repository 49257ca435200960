"""The collector's half of ``compression``: whatever the nodes chose is read by what it is."""

from __future__ import annotations

from locex.api import Array, Contribution, ContributionDecoder, Stage
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.compression.codecs import READERS
from locex_privacy.compression.layout import is_float, moved, size_of


class CompressionDecoderConfig(PluginConfig):
    """Nothing to configure: a contribution tells how it is written."""


class Decoder:
    """Turns a codec's arrays back into parameters; nodes of one training may use different methods."""

    stage = Stage.COMPRESS

    def decode(self, contribution: Contribution, current: list[Array]) -> Contribution:
        """Return the contribution with parameters in the shapes of ``current``; raise `ValueError` for a bad one."""
        arrays = contribution.parameters
        codec = next((one for one in READERS if arrays and arrays[0].dtype == one.marker), None)
        if codec is None:
            told = f"begins with {arrays[0].dtype}" if arrays else "is empty"
            raise ValueError(f"it is not compressed by a known method: it {told}")
        others = arrays[codec.arrays :]
        expected = sum(not is_float(tensor) for tensor in current)
        if len(arrays) < codec.arrays or len(others) != expected:
            raise ValueError(f"it has {len(arrays)} arrays, {codec.arrays} + {expected} are due")
        vector = codec.decode(arrays[: codec.arrays], size_of(current))
        return Contribution(moved(current, vector, others), contribution.examples, contribution.metrics)


class CompressionDecoder:
    """Reads compressed updates: the collector's half of ``compression``."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `CompressionDecoderConfig`."""
        return CompressionDecoderConfig

    @hookimpl
    def locex_create_aggregation(self) -> ContributionDecoder:
        """Return the decoder."""
        return Decoder()
