"""A PyTorch model with its data, alive for the whole training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from locex.api import BuildContext, Dataset, Evaluation, FitResult, ModelSignature, Stopped
from locex.errors import DataUnavailable, FormatMismatch, InvalidModel, LocexError
from locex_torch_builder.artefact import load_model
from locex_torch_builder.batches import BatchPlan, as_tensor, seeded
from locex_torch_builder.export import export_model
from locex_torch_builder.losses import LOSSES
from locex_torch_builder.metrics import Tally, metrics_named
from locex_torch_builder.names import LossName, MetricName
from locex_torch_builder.schedule import Schedule
from locex_torch_builder.state import load_state, save_state

if TYPE_CHECKING:
    from locex.api import Array
    from locex.schemas.job import TrainConfig


class PytorchSession:
    """Implements `locex.api.TrainingSession` on the CPU."""

    signature: ModelSignature

    def __init__(self, context: BuildContext, loss: LossName, metrics: Sequence[MetricName]) -> None:
        """Load the model, make tensors of the data, make optimizer and scheduler."""
        torch.set_num_threads(context.threads)
        self._seed = context.seed
        self._should_stop = context.should_stop
        self._loss = LOSSES[loss]()
        self._metrics = metrics_named(metrics, self._loss)
        self._loaded = load_model(context)
        self.signature = self._loaded.signature
        # convolutions on the CPU are up to twice as fast with channels last; values and names stay
        self._model = self._loaded.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._train, self._test = self._place(context.data.train), self._place(context.data.test)
        self._optimizer = context.optimizer(self._trainable())
        self._schedule = Schedule(self._optimizer, context)

    def _trainable(self) -> list[nn.Parameter]:
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        if not parameters:
            raise InvalidModel(
                "the model has no parameters to train", remedy="upload it unfrozen, with its weights as parameters"
            )
        return parameters

    def _place(self, data: Dataset) -> tuple[Tensor, Tensor]:
        x, y = as_tensor(data.x), as_tensor(data.y)
        if len(x) != len(y):
            raise FormatMismatch(
                f"{len(x)} inputs do not go with {len(y)} targets", remedy="check the data and its transformations"
            )
        return x, self._loss.targets(y, self._output_sizes(x)) if len(x) else y

    def _output_sizes(self, x: Tensor) -> tuple[int, ...]:
        self._model.eval()
        try:
            with torch.no_grad():
                outputs = self._model(x[:1])
        except RuntimeError as error:
            takes = f", it takes {list(self.signature.input.size)}" if self.signature.input else ""
            raise FormatMismatch(
                f"the model does not take inputs of size {list(x.shape[1:])} and type {x.dtype}{takes}: {error}",
                remedy="add a transformation of the inputs, or choose a model that fits the data",
            ) from error
        if not isinstance(outputs, Tensor):
            raise InvalidModel("the model gives no single tensor", remedy="upload a model with one output tensor")
        return tuple(outputs.shape[1:])

    def get_parameters(self) -> dict[str, Array]:
        """Return copies of the model's tensors by name, in the order of ``state_dict``."""
        return {
            name: np.array(tensor.detach().numpy(), order="C", copy=True)
            for name, tensor in self._model.state_dict().items()
        }

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Set every tensor in place; integer buffers take the nearest integer of an average."""
        with torch.no_grad():
            for name, tensor in self._model.state_dict().items():
                array = parameters[name]
                if not tensor.is_floating_point() and array.dtype.kind == "f":
                    array = np.rint(array)
                tensor.copy_(as_tensor(array))

    def fit(self, config: TrainConfig, *, server_round: int, proximal_mu: float = 0.0) -> FitResult:
        """Train from the parameters that are set; loss and metrics are the last epoch's, seen while training.

        Raise `Stopped`, `DataUnavailable` without training data, and `LocexError` (``training-diverged``) where the
        loss is not finite. ``proximal_mu`` adds FedProx's term (Li et al. 2020), which the loss told does not hold.
        """
        examples = len(self._train[0])
        if not examples:
            raise DataUnavailable("there is no training data", remedy="check the node's data source")
        self._schedule.follow(config.learning_rate)
        self._model.train()
        anchor = [parameter.detach().clone() for parameter in self._trainable()] if proximal_mu > 0 else []
        plan = BatchPlan(examples, config, seed=self._seed, server_round=server_round)
        with seeded(self._seed, server_round):
            for epoch in range(config.epochs):
                last = epoch == config.epochs - 1
                tally = Tally(self._loss, self._metrics if last else {})
                self._epoch(plan, epoch, tally, anchor, proximal_mu)
        return FitResult(tally.examples, {"loss": tally.loss(), **tally.metrics()})

    def _epoch(self, plan: BatchPlan, epoch: int, tally: Tally, anchor: Sequence[Tensor], mu: float) -> None:
        x, y = self._train
        warming = self._schedule.warming
        for index in plan.epoch(epoch):
            if self._should_stop():
                raise Stopped
            targets = y.index_select(0, index)
            outputs = self._model(x.index_select(0, index))
            loss = self._loss(outputs, targets)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if anchor:
                self._pull(anchor, mu)
            self._optimizer.step()
            self._schedule.after_step()
            tally.add(loss, outputs, targets)
        self._schedule.after_epoch(warming=warming)
        if not math.isfinite(tally.loss()):
            raise LocexError(
                f"the training diverged: the loss of epoch {epoch + 1} is {tally.loss()}",
                remedy="lower the learning rate, warm up, or check the data for extreme values",
                code="training-diverged",
            )

    def _pull(self, anchor: Sequence[Tensor], mu: float) -> None:
        with torch.no_grad():
            for parameter, start in zip(self._trainable(), anchor, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start, alpha=mu)

    def evaluate(self, config: TrainConfig) -> Evaluation:
        """Evaluate on the test data in batches; raise `DataUnavailable` where there is none."""
        x, y = self._test
        if not len(x):
            raise DataUnavailable("there is no test data", remedy="check the node's data source")
        self._model.eval()
        tally = Tally(self._loss, self._metrics)
        with torch.inference_mode():
            for inputs, targets in zip(
                torch.split(x, config.batch_size), torch.split(y, config.batch_size), strict=True
            ):
                if self._should_stop():
                    raise Stopped
                outputs = self._model(inputs)
                tally.add(self._loss(outputs, targets), outputs, targets)
        return Evaluation(tally.loss(), tally.examples, tally.metrics())

    def save_state(self, folder: Path) -> None:
        """Write the state of optimizer, scheduler and warm-up."""
        save_state(folder, self._optimizer, self._schedule)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote; raise `LocexError` (``state-incompatible``) if it is of another kind."""
        load_state(folder, self._optimizer, self._schedule)

    def export(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the artefact, and ``onnx`` if asked for."""
        inputs = self._train[0]
        example = torch.zeros((2, *inputs.shape[1:]), dtype=inputs.dtype)
        return export_model(self._loaded, example, folder, formats)
