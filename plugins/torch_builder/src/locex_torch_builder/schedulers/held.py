"""OneCycleLR for trainings whose length a node does not know: rounds are the server's."""

from __future__ import annotations

from torch.optim import lr_scheduler


class OneCycleLR(lr_scheduler.OneCycleLR):
    """Keeps its last rate after ``total_steps``, where PyTorch raises `ValueError`."""

    def step(self, epoch: int | None = None) -> None:
        """Step as long as there are steps."""
        if self.last_epoch < self.total_steps:
            super().step(epoch)
