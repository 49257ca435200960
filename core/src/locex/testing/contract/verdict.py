"""What trying a plugin showed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Verdict:
    """``faults`` break the contract; ``notes`` say what was tried, or why something was not."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require(self, holds: object, fault: str) -> bool:
        """Note a fault unless something holds; return whether it does."""
        if not holds:
            self.faults.append(fault)
        return bool(holds)
