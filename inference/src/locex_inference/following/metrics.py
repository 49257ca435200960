"""Counts of what following did."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class FollowMetrics:
    """Versions accepted and refused, and services that failed, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decided = Counter(
            "locex_inference_followed_versions",
            "Versions that were offered, by what became of them.",
            ["model", "verdict"],
            registry=registry,
        )
        self._failed = Counter(
            "locex_inference_follow_failures",
            "Fetches of a new version that failed.",
            ["model"],
            registry=registry,
        )

    def decided(self, model: str, *, accepted: bool) -> None:
        """Count a decision."""
        self._decided.labels(model, "accepted" if accepted else "refused").inc()

    def failed(self, model: str) -> None:
        """Count a failed fetch."""
        self._failed.labels(model).inc()
