"""What can be told of a job with ``dp-sgd`` before anything runs."""

from __future__ import annotations

import importlib.util

from locex.api import PrivacyReview
from locex.errors import PrivacyRefused
from locex.schemas.plugin import PluginConfig
from locex_privacy.dp_sgd.config import DpSgdConfig

_PATH = "/privacy-mechanisms/dp-sgd"
_OPTIMIZERS = {
    "lbfgs": "it searches with many gradients a step",
    "sparseadam": "it takes sparse gradients only",
}
_OPTIONS = ("mixed_precision", "compile")


def review(config: DpSgdConfig, seen: PrivacyReview) -> list[str]:
    """Return warnings; raise `PrivacyRefused` where the job cannot be trained with private gradients."""
    if seen.library == "pytorch":
        require_opacus()
    if seen.library == "keras" and config.ghost_clipping:
        raise _refused("ghost_clipping is for PyTorch models only", "leave it out", f"{_PATH}/ghost_clipping")
    if config.target_epsilon is not None and config.rounds is None and seen.job and seen.job.num_rounds is None:
        raise _refused(
            "target_epsilon needs the number of planned rounds",
            "give num_rounds in the job, rounds beside target_epsilon, or noise_multiplier instead",
            f"{_PATH}/target_epsilon",
        )
    _refuse_options(seen.plugins.get("builder"))
    _refuse_optimizer(seen)
    for role, path in (("scheduler", "/scheduler_config"), ("warmup_scheduler", "/warmup_config/scheduler_conf")):
        monitor = getattr(seen.plugins.get(role), "monitor", None)
        if monitor is not None:
            raise _refused(
                f"a scheduler that monitors {monitor} would tell of the data by what it makes of the learning rate",
                "choose a scheduler that follows a plan",
                path,
            )
    return _warnings(config)


def require_opacus() -> None:
    """Raise `PrivacyRefused` where the library for PyTorch is not installed."""
    if importlib.util.find_spec("opacus") is None:
        raise _refused(
            "dp-sgd trains PyTorch models with opacus, which is not installed",
            "pip install locex-privacy[torch]",
            _PATH,
        )


def _refuse_options(builder: PluginConfig | None) -> None:
    for option in _OPTIONS:
        if getattr(builder, option, None):
            raise _refused(f"dp-sgd does not go with {option}", f"leave out {option}", f"/builder/{option}")


def _refuse_optimizer(seen: PrivacyReview) -> None:
    chosen = seen.job.optimizer_config if seen.job else None
    if chosen is not None and chosen.optimizer in _OPTIMIZERS:
        raise _refused(
            f"dp-sgd does not go with {chosen.optimizer}: {_OPTIMIZERS[chosen.optimizer]}",
            "choose another optimizer, e.g. sgd or adam",
            "/optimizer_config/optimizer",
        )


def _warnings(config: DpSgdConfig) -> list[str]:
    if config.max_epsilon is None:
        return ["dp-sgd has no max_epsilon: ε is reported, and grows as long as the training goes on"]
    return []


def _refused(message: str, remedy: str, path: str) -> PrivacyRefused:
    return PrivacyRefused(message, remedy=remedy, errors=[{"path": path, "message": message}])
