"""How a model is run: on which device, in which memory layout and precision, compiled or not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from locex.errors import FormatMismatch, InvalidModel
from locex_torch_builder.model import LoadedModel, first_line, require_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

Warn = Callable[[str], None]

_UNFIT = (RuntimeError, ValueError, IndexError, TypeError)
"""What layers raise for inputs that they do not take."""


def chosen_device() -> torch.device:
    """Return the GPU where there is one; its convolutions then choose their algorithm by the seed, not by timing."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda", torch.cuda.current_device())


def chosen_precision(name: str | None, device: torch.device, warn: Warn) -> torch.dtype | None:
    """Return the type that autocast runs the model in, or None for the model's own; warn where it is not to be had."""
    if name is None:
        return None
    if name == "float16" and device.type != "cuda":
        warn("mixed_precision float16 was ignored: it needs a GPU; bfloat16 runs on a CPU, too")
        return None
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        warn("mixed_precision bfloat16 was ignored: this GPU has no bfloat16; choose float16")
        return None
    return torch.float16 if name == "float16" else torch.bfloat16


class Forward:
    """A loaded model on its device, called with batches of inputs."""

    def __init__(self, model: LoadedModel, device: torch.device, precision: torch.dtype | None) -> None:
        """Move the model to the device."""
        self.device = device
        self.precision = precision
        model.move(device)
        self.module = model.module
        self._model = model
        self._run: Callable[[Tensor], Any] = self.module

    def train(self, mode: bool = True) -> None:
        """Switch to training, or with False to evaluation."""
        self._model.train(mode)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs in full precision."""
        if self.precision is None:
            outputs: Tensor = self._run(inputs)
            return outputs
        with torch.autocast(self.device.type, self.precision):
            outputs = self._run(inputs)
        return outputs.float()

    @contextmanager
    def on_the_cpu(self) -> Iterator[None]:
        """Have the model on the CPU inside."""
        self._model.move(torch.device("cpu"))
        try:
            yield
        finally:
            self._model.move(self.device)

    def lay_out(self, sample: Tensor) -> tuple[int, ...]:
        """Choose the memory layout and return the output's sizes without the axis of examples.

        Raise `FormatMismatch` where the model does not take the sample, a batch of one.
        """
        self.train(False)
        # convolutions on the CPU are up to twice as fast with channels last; values and names stay
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        try:
            return self._sizes(sample)
        except _UNFIT:  # a model that flattens with view() takes the usual layout only
            self.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        try:
            return self._sizes(sample)
        except _UNFIT as error:
            require_memory(error)
            signature = self._model.signature
            takes = f", it takes {list(signature.input.size)}" if signature.input else ""
            raise FormatMismatch(
                f"the model does not take inputs of size {list(sample.shape[1:])} and type {sample.dtype}{takes}: "
                f"{error}",
                remedy="add a transformation of the inputs, or choose a model that fits the data",
            ) from error

    def _sizes(self, sample: Tensor) -> tuple[int, ...]:
        with torch.no_grad():
            outputs: Any = self._run(sample)
        if not isinstance(outputs, Tensor):
            raise InvalidModel("the model gives no single tensor", remedy="upload a model with one output tensor")
        return tuple(outputs.shape[1:])

    def compile(self, batch: Tensor, warn: Warn) -> None:
        """Compile the model and try it on a batch; run it as it is, and warn, where that does not work."""
        if isinstance(self.module, torch.jit.ScriptModule | fx.GraphModule):
            warn(f"compile was ignored: a {self._model.kind} runs as it is; upload a named architecture")
            return
        plain = self._run
        try:
            with warnings.catch_warnings(action="ignore"), _unchanged(self.module):
                self._run = _compiled(self.module)
                self._try(batch)
        except Exception as error:  # noqa: BLE001 -- compilers raise what their many passes raise
            self._run = plain
            warn(f"compile was ignored, the model runs as it is: torch.compile says: {first_line(error)}")

    def _try(self, batch: Tensor) -> None:
        self.train()
        self(batch).sum().backward()  # type: ignore[no-untyped-call]
        self.train(False)
        with torch.no_grad():
            self(batch)


def _compiled(module: nn.Module) -> Callable[[Tensor], Any]:
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1  # noqa: SLF001 -- no processes beside the worker's own
    compiled: Callable[[Tensor], Any] = torch.compile(module)
    return compiled


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Undo what a trial changes: running averages, gradients and draws."""
    kept = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            module.zero_grad()
            with torch.no_grad():
                for name, buffer in module.named_buffers():
                    buffer.copy_(kept[name])
