"""A PyTorch model with its data, alive for the whole training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from locex.api import (
    Augment,
    BuildContext,
    Dataset,
    Differentiable,
    Evaluation,
    FitResult,
    GradientSource,
    ModelSignature,
    Stopped,
)
from locex.errors import DataUnavailable, InvalidModel, LocexError
from locex_torch_builder.artefact import load_model
from locex_torch_builder.batches import BatchPlan, DelegatedPlan, seeded, unforeseeable
from locex_torch_builder.evaluation import evaluate
from locex_torch_builder.examples import Examples, as_tensor, examples_of
from locex_torch_builder.export import export_model, require_formats
from locex_torch_builder.forward import Forward, chosen_device, chosen_precision
from locex_torch_builder.losses import LOSSES
from locex_torch_builder.metrics import Measure, Tally, measures, require_fitting
from locex_torch_builder.model import require_arrays
from locex_torch_builder.options import PytorchBuilderConfig
from locex_torch_builder.schedule import Schedule
from locex_torch_builder.state import load_state, save_state
from locex_torch_builder.training import Trainer

if TYPE_CHECKING:
    from locex.api import Array
    from locex.schemas.job import TrainConfig


@dataclass(frozen=True, slots=True)
class _Part:
    """Training or test data, placed: examples, the metrics on them, and the first inputs, at most one."""

    examples: Examples
    measures: Mapping[str, Measure]
    sample: Tensor


class PytorchSession:
    """Implements `locex.api.PrivateSession`, on the GPU where there is one, else on the CPU."""

    signature: ModelSignature

    def __init__(self, context: BuildContext, options: PytorchBuilderConfig) -> None:
        """Load the model, make tensors of the data, make optimizer and scheduler."""
        torch.set_num_threads(context.threads)
        self._seed = context.seed
        self._should_stop = context.should_stop
        self._loss = LOSSES[options.eval_func]
        require_fitting(options.eval_metrics, self._loss.reading)
        self._loaded = load_model(context)
        require_arrays(self._loaded.module)
        require_formats(self._loaded, options.export.formats)
        self.signature = self._loaded.signature
        device = chosen_device()
        precision = chosen_precision(options.mixed_precision, device, context.warn)
        self._forward = Forward(self._loaded, device, precision)
        self._train = self._place(context.data.train, options, context.data.augment)
        self._test = self._place(context.data.test, options)
        self._optimizer = context.optimizer(self._trainable())
        self._trainer = Trainer(self._forward, self._loss, self._optimizer, self._trainable(), options)
        self._schedule = Schedule(self._optimizer, context)
        self._schedule.require_monitor(self._names(options))
        self._source: GradientSource | None = None
        if options.compile and len(self._train.examples):
            self._compile(context)

    def _trainable(self) -> list[nn.Parameter]:
        parameters = [parameter for parameter in self._forward.module.parameters() if parameter.requires_grad]
        if not parameters:
            raise InvalidModel(
                "the model has no parameters to train", remedy="upload it unfrozen, with its weights as parameters"
            )
        return parameters

    def _place(self, data: Dataset, options: PytorchBuilderConfig, augment: Augment | None = None) -> _Part:
        first = Dataset(data.x[:1], data.y[:1])
        if len(first) and augment is not None:
            first = augment(first, np.random.default_rng(self._seed))
        sample = as_tensor(first.x)
        device, reading = self._forward.device, self._loss.reading
        if not len(first):
            return _Part(examples_of(data, lambda y: y, device), {}, sample)
        sizes = self._forward.lay_out(sample.to(device))
        targets = partial(reading.targets, sizes=sizes)
        examples = examples_of(data, targets, device, augment)
        targets(as_tensor(first.y))  # those that are read batch by batch are seen here first
        return _Part(examples, measures(options.eval_metrics, reading, sizes, device), sample)

    def _names(self, options: PytorchBuilderConfig) -> list[str]:
        """Return what a scheduler may monitor."""
        names = list(dict.fromkeys(("loss", *options.eval_metrics)))
        return names + [f"val_{name}" for name in names if len(self._test.examples)]

    def _compile(self, context: BuildContext) -> None:
        inputs, _ = self._first(context.config.batch_size)
        self._forward.compile(inputs, context.warn)

    def _first(self, count: int) -> tuple[Tensor, Tensor]:
        index = torch.arange(min(count, len(self._train.examples)))
        return self._train.examples.batch(index, lambda: np.random.default_rng(self._seed))

    def differentiable(self) -> Differentiable:
        """Return the module with its trained parameters."""
        parameters, examples = self._trainable(), len(self._train.examples)
        return Differentiable(
            "torch", self._forward.module, parameters, self._loss.function, examples, lambda: self._first(2)
        )

    def take_gradients_from(self, source: GradientSource) -> None:
        """Let ``source`` make batches and gradients; raise `InvalidConfiguration` for what does not go with it."""
        self._schedule.require_blind()
        self._trainer.take_gradients_from(source)
        self._train.examples.augment_one_by_one()
        self._source = source

    def get_parameters(self) -> dict[str, Array]:
        """Return copies of the model's tensors by name, in the order of ``state_dict``."""
        return {
            name: np.array(tensor.detach().cpu().numpy(), order="C", copy=True)
            for name, tensor in self._forward.module.state_dict().items()
        }

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Set every tensor in place; integer buffers take the nearest integer of an average."""
        with torch.no_grad():
            for name, tensor in self._forward.module.state_dict().items():
                array = parameters[name]
                if not tensor.is_floating_point() and array.dtype.kind == "f":
                    array = np.rint(array)
                tensor.copy_(as_tensor(array))

    def fit(self, config: TrainConfig, *, server_round: int, proximal_mu: float = 0.0) -> FitResult:
        """Train from the parameters that are set; loss and metrics are the last epoch's, seen while training.

        Where a scheduler monitors the test data, their loss and metrics are there too, as ``val_…``. Raise `Stopped`,
        `DataUnavailable` without training data, and `LocexError` (``training-diverged``) where the loss is not
        finite. ``proximal_mu`` adds FedProx's term (Li et al. 2020), which the loss told does not hold.
        """
        if not len(self._train.examples):
            raise DataUnavailable("there is no training data", remedy="check the node's data source")
        self._schedule.follow(config.learning_rate)
        self._trainer.begin(proximal_mu)
        plan = self._plan(config, server_round)
        with self._drawing(server_round):
            for epoch in range(config.epochs):
                measured = self._schedule.monitor is not None or epoch == config.epochs - 1
                tally = Tally(self._train.measures if measured else {}, self._forward.device)
                metrics = self._epoch(plan, epoch, tally, config)
        return FitResult(tally.examples, metrics)

    def _drawing(self, server_round: int) -> AbstractContextManager[None]:
        """Return what draws (dropout …) come from.

        Private gradients are of examples each by itself. An example more or less shifts the draws of all others, which
        whoever knows the seed would see.
        """
        if self._source is not None:
            return unforeseeable(self._forward.device)
        return seeded(self._forward.device, self._seed, server_round)

    def _plan(self, config: TrainConfig, server_round: int) -> BatchPlan:
        examples, seeds = len(self._train.examples), {"seed": self._seed, "server_round": server_round}
        if self._source is not None:
            return DelegatedPlan(self._source, examples, config, **seeds)
        return BatchPlan(examples, config, **seeds)

    def _epoch(self, plan: BatchPlan, epoch: int, tally: Tally, config: TrainConfig) -> dict[str, float]:
        self._forward.train()
        warming = self._schedule.warming
        for step, index in enumerate(plan.epoch(epoch)):
            if self._should_stop():
                raise Stopped
            if len(index):
                inputs, targets = self._train.examples.batch(index, partial(plan.generator, epoch, step))
                loss, outputs = self._trainer.step(inputs, targets)
                tally.add(loss, outputs, targets)
            else:
                self._trainer.step_on_nothing()
            self._schedule.after_step()
        metrics = {"loss": tally.loss(), **tally.metrics()} if tally.examples else {}
        if not math.isfinite(metrics.get("loss", 0.0)):
            if self._source is None:
                raise LocexError(
                    f"the training diverged: the loss of epoch {epoch + 1} is {tally.loss()}",
                    remedy="lower the learning rate, warm up, or check the data for extreme values",
                    code="training-diverged",
                )
            # A round that fails shows, and one example's loss must not decide that; private weights may.
            metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if (self._schedule.monitor or "").startswith("val_"):
            seen = self.evaluate(config)
            metrics |= {f"val_{name}": value for name, value in (("loss", seen.loss), *seen.metrics.items())}
        self._schedule.after_epoch(warming=warming, metrics=metrics)
        return metrics

    def evaluate(self, config: TrainConfig) -> Evaluation:
        """Evaluate on the test data in batches; raise `DataUnavailable` where there is none."""
        if not len(self._test.examples):
            raise DataUnavailable("there is no test data", remedy="check the node's data source")
        return evaluate(
            self._forward,
            self._loss,
            self._test.examples,
            self._test.measures,
            batch_size=config.batch_size,
            should_stop=self._should_stop,
        )

    def save_state(self, folder: Path) -> None:
        """Write the state of optimizer, scheduler and warm-up."""
        save_state(folder, self._optimizer, self._schedule)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote; raise `LocexError` (``state-incompatible``) if it is of another kind."""
        load_state(folder, self._optimizer, self._schedule)

    def export(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the artefact, and the further formats asked for."""
        example = torch.zeros((2, *self._train.sample.shape[1:]), dtype=self._train.sample.dtype)
        with self._forward.on_the_cpu():
            return export_model(self._loaded, example, folder, formats)
