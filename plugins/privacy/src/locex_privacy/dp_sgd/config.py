"""What ``dp-sgd`` takes of a job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from locex.schemas.plugin import PluginConfig


class DpSgdConfig(PluginConfig):
    """Clipping norm, noise and budget."""

    max_grad_norm: float = Field(
        gt=0, description="C: the L2 norm to which the gradient of each example is clipped, all weights together."
    )
    target_epsilon: float | None = Field(
        default=None,
        gt=0,
        description="ε of all planned rounds of the job together, from which the noise is calibrated; instead of "
        "noise_multiplier. The plan is rounds x epochs x steps of the job's first config entry.",
    )
    noise_multiplier: float | None = Field(
        default=None,
        ge=1e-2,
        le=1e6,
        description="z: the noise's standard deviation is z · C, on the sum of a step's clipped gradients; instead of "
        "target_epsilon. No less than 0.01, which protects nothing.",
    )
    delta: float = Field(
        default=1e-5, gt=0, lt=1, description="δ, at which ε is reported and bounded; choose less than 1 / examples."
    )
    max_epsilon: float | None = Field(
        default=None,
        gt=0,
        description="The round that would raise the data set's ε past this, over all jobs, is refused; absent: "
        "target_epsilon, or no bound.",
    )
    rounds: int | None = Field(
        default=None, gt=0, description="Planned rounds, for target_epsilon; absent: the job's num_rounds."
    )
    ghost_clipping: bool = Field(
        default=False,
        description="PyTorch: clip without making the gradients of single examples, which takes less memory for large "
        "layers and a second backward pass (Li et al. 2022).",
    )
    public_examples: int = Field(
        default=1, gt=0, description="The number of examples that is sent instead of the true one, e.g. a public one."
    )
    unit: Literal["example"] = Field(default="example", description="The unit of privacy.")

    @model_validator(mode="after")
    def _has_one_measure_of_noise(self) -> DpSgdConfig:
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("exactly one of target_epsilon and noise_multiplier is required")
        if self.max_epsilon is None:  # shown in the job as it is understood, where a site's policy may bound it
            self.max_epsilon = self.target_epsilon
        return self
