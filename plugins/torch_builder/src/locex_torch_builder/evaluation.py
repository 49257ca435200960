"""Loss and metrics of a model on examples, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from locex.api import Evaluation, Stopped
from locex_torch_builder.examples import Examples
from locex_torch_builder.forward import Forward
from locex_torch_builder.losses import Loss
from locex_torch_builder.metrics import Measure, Tally


def evaluate(
    forward: Forward,
    loss: Loss,
    examples: Examples,
    measures: Mapping[str, Measure],
    *,
    batch_size: int,
    should_stop: Callable[[], bool],
) -> Evaluation:
    """Evaluate in batches, in evaluation mode; raise `Stopped` between two of them."""
    forward.train(False)
    tally = Tally(measures, forward.device)
    # not inference_mode: metrics keep sums, and those made in it could not be changed outside of it
    with torch.no_grad():
        for inputs, targets in examples.in_order(batch_size):
            if should_stop():
                raise Stopped
            outputs = forward(inputs)
            tally.add(loss.function(outputs, targets), outputs, targets)
    return Evaluation(tally.loss(), tally.examples, tally.metrics())
