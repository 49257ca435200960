"""What a job, or a training at the collector, says about ``homomorphic``."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from locex.schemas.plugin import PluginConfig
from locex_privacy.homomorphic.parameters import CkksParameters, imprecision_of, insecurity_of


class HomomorphicConfig(PluginConfig):
    """Which key, and what its parameters must be; a parameter that is not given is the key's."""

    key: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$",
        description="Name of the federation's key: of its file, without the ending. Absent: the only one there is.",
    )
    poly_modulus_degree: int | None = Field(default=None, description="N of the key: twice the values per ciphertext.")
    coeff_mod_bit_sizes: list[int] | None = Field(default=None, description="Bits of each prime of the key's modulus.")
    scale_bits: int | None = Field(default=None, description="log2 of the factor by which values are encoded.")
    scheme: str = Field(default="CKKS", description="CKKS; there is no other.")

    @field_validator("scheme")
    @classmethod
    def _only_ckks(cls, value: str) -> str:
        if value.upper() != "CKKS":
            raise ValueError(f"{value} is not there: weights are real numbers, and only CKKS adds those")
        return "CKKS"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        degree, bits, scale = self.poly_modulus_degree, self.coeff_mod_bit_sizes, self.scale_bits
        fault = insecurity_of(degree, bits) if degree is not None and bits is not None else ""
        if bits is not None and scale is not None:
            fault = fault or imprecision_of(bits, scale)
        if fault:
            raise ValueError(fault)
        return self

    def disagreement(self, parameters: CkksParameters) -> str:
        """Return where the parameters of a key are not those that are asked for, or an empty string."""
        asked = {
            "poly_modulus_degree": self.poly_modulus_degree,
            "coeff_mod_bit_sizes": self.coeff_mod_bit_sizes,
            "scale_bits": self.scale_bits,
        }
        have = parameters.model_dump(mode="json")
        differing = [
            f"{name} is {have[name]}, not {value}"
            for name, value in asked.items()
            if value is not None and value != have[name]
        ]
        return "; ".join(differing)
