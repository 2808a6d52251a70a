"""The frozen copy of a model: it only ever gives outputs and input gradients; in bf16 where that pays.

Where it pays is a rule, not a measurement, so that equal calls give equal maps; and it looks at one evaluation, never
at how many there are, so that a sample's map does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from xaicli.attribution.given import first_line
from xaicli.attribution.lookups import Embedded, Embeddings, name_of
from xaicli.attribution.settings import Precision
from xaicli.errors import XaiError
from xaicli.heads.calling import Call

IN_PLACE = (
    "does forward change in place what its own gradient needs (x[:, 0] += ..., add_, a view written to)? write it out "
    "of place; loss.backward() fails alike"
)
_NONE: Embedded = MappingProxyType({})
_LEAST = 2
"""No batch of one: some models squeeze it away."""
_LEAST_WORK = 1e9
"""Floating-point operations of one forward pass, below which overheads, not products, take the time."""


_Found = TypeVar("_Found")


class BatchError(XaiError):
    """The model fails on a batch, of which it may take fewer rows."""


class FrozenModel:
    """A copy of a model, called with a batch of each input.

    Args:
        model: A private copy: evaluation mode, no gradients on weights.
        call: How it takes its inputs.
        device: Where to.
        batch: The one batch size it accepts, or None.
        most: The largest batch that is known to be too large, halved; None where none is.

    Attributes:
        beside: Samples that every batch has behind its own, so that forward, which cuts ids to the longest of a batch,
            cuts them alike in each.
    """

    beside: tuple[int, ...] = ()

    def __init__(
        self, model: nn.Module, call: Call, *, device: torch.device, batch: int | None, most: int | None = None
    ) -> None:
        self.model: Any = moved(model, device)
        self.call, self.device, self.batch, self.most = call, device, batch, most
        self.channels_last = False
        self._recurrent = device.type == "cuda" and _is_recurrent(model)
        dtypes = {t.dtype for t in model.parameters() if t.is_floating_point()}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        if dtypes & {torch.float16, torch.bfloat16}:
            self.model.to(self.dtype)

    def __call__(self, inputs: Sequence[Tensor], embedded: Embedded = _NONE) -> Any:
        """Whatever the model returns for a batch.

        Args:
            inputs: All inputs, in the caller's order.
            embedded: {call of an embedding: its look-ups, each with the point it answers at}.
        """
        with RecurrentWithoutCudnn() if self._recurrent else nullcontext():
            if not embedded:
                return self.call(self.model, inputs)
            with Embeddings(embedded):
                return self.call(self.model, inputs)

    def at_once(self, rows: int) -> int:
        """How many rows a pass takes where so many are wished for."""
        return self.batch or min(rows, self.most or rows)

    def takes_fewer(self, rows: int) -> bool:
        """After a failure of so many rows: half of them next, as some models have room for a largest batch."""
        if self.batch is not None or rows <= _LEAST:
            return False
        self.most = rows // 2
        return True

    def in_steps(self, total: int, rows: int, work: Callable[[int, int], _Found]) -> list[_Found]:
        """What `work(first, last)` gives for all rows, so many at a time, or as many as the model takes.

        Raises:
            BatchError: The model fails on two rows, too; the first failure.
        """
        found: list[_Found] = []
        first, failed = 0, None
        while first < total:
            last = min(total, first + self.at_once(rows))
            try:
                found.append(work(first, last))
            except BatchError as error:
                failed = failed or error
                if not self.takes_fewer(last - first):
                    raise failed from failed.__cause__
                continue
            first = last
        return found

    def forward(self, inputs: Sequence[Tensor], embedded: Embedded = _NONE, *, made: bool = False) -> Any:
        """As a call; what the model cannot take becomes an error in one line.

        Args:
            inputs, embedded: As a call's.
            made: Whether the inputs are those of a method, which the samples may not be.

        Raises:
            BatchError: The model fails on these inputs.
        """
        try:
            return self(inputs, embedded)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever another's forward raises
            if isinstance(error, XaiError) or is_memory_error(error):
                raise
            shapes = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in inputs)
            if made:
                raise BatchError(
                    "the model answers the samples and fails on what the methods make of them, inputs with noise and "
                    f"between a sample and its baseline: {first_line(error)}",
                    hint="numbers that stand for something, a category say, are an input of their own of whole "
                    "numbers; --methods gradient needs the samples alone",
                ) from error
            raise BatchError(
                f"the model fails on inputs of shape {shapes}: {first_line(error)}",
                hint=IN_PLACE
                if "modified inplace" in str(error)
                else "do the inputs fit the model? check the order, shapes and dtypes of --data, and --resize",
            ) from error

    def arranged(self, batch: Tensor) -> Tensor:
        """A batch as the model reads it fastest, padded."""
        batch = self.padded(batch)
        if self.channels_last and batch.ndim == 4:
            return batch.contiguous(memory_format=torch.channels_last)
        return batch

    def together(self, inputs: Sequence[Tensor], samples: Sequence[int]) -> list[Tensor]:
        """A batch of some samples, with those that every batch has, padded: a copy."""
        rows = [*samples, *self.beside]
        return [self.padded(x[rows]) for x in inputs]

    def padded(self, batch: Tensor) -> Tensor:
        """The batch, repeated up to the size the model needs."""
        size = self.batch or max(_LEAST, len(batch))
        if len(batch) >= size:
            return batch
        return torch.cat([batch, batch[-1:].expand(size - len(batch), *batch.shape[1:])])


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or not."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class RecurrentWithoutCudnn(TorchFunctionMode):
    """Recurrent layers run without cuDNN, whose have no backward in evaluation mode; all else of a model with it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if name_of(func) not in _RECURRENT:
            return func(*args, **(kwargs or {}))
        was = torch.backends.cudnn.enabled
        torch.backends.cudnn.enabled = False
        try:
            return func(*args, **(kwargs or {}))
        finally:
            torch.backends.cudnn.enabled = was


def _is_recurrent(model: nn.Module) -> bool:
    """Whether there are recurrent layers, as modules or as operations of a graph."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            return True
        if isinstance(module, fx.GraphModule) and any(
            name_of(node.target) in _RECURRENT for node in module.graph.nodes
        ):
            return True
    return False


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on a device, with all that its graphs name one for: what they make on the way, and their constants.

    An exported graph has the device it was exported on built in (`arange`, the states of an LSTM), which `to` leaves.

    Args:
        model: A private copy, changed.
        device: Where to.
    """
    model = model.to(device)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()  # a copy's weights lie apart, and cuDNN would gather them at every call
        if not isinstance(module, fx.GraphModule):
            continue
        changed = False
        for node in module.graph.nodes:
            if node.op == "get_attr":
                changed |= _constant_moved(module, str(node.target), device)
                continue
            arguments = map_aggregate((node.args, node.kwargs), lambda a: _elsewhere(a, device))
            if arguments != (node.args, node.kwargs):
                node.args, node.kwargs = arguments
                changed = True
        if changed:
            module.recompile()
    return model


def _elsewhere(argument: Any, device: torch.device) -> Any:
    return device if isinstance(argument, torch.device) and argument.type != device.type else argument


def _constant_moved(module: nn.Module, name: str, device: torch.device) -> bool:
    """Move a tensor that is neither parameter nor buffer."""
    *path, last = name.split(".")
    try:
        owner = module.get_submodule(".".join(path))
    except AttributeError:
        return False
    value = getattr(owner, last, None)
    if not isinstance(value, Tensor) or value.device.type == device.type or isinstance(value, nn.Parameter):
        return False
    setattr(owner, last, value.to(device))
    return True


Reduce = Callable[[Any, Tensor], Tensor]
"""(what the model returned, units) -> (row,) scalars; `units`: which explanation a row is for."""


def wants_bf16(asked: Precision, model: FrozenModel, inputs: Sequence[Tensor]) -> bool:
    """Whether the gradient passes of a model are to run in bf16.

    Args:
        asked: By the caller.
        model: The frozen model.
        inputs: A few samples of each input.
    """
    if asked is not Precision.AUTO:
        return asked is Precision.BF16
    return has_fast_bf16(model.device) and work_of(model, inputs) >= _LEAST_WORK


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 at twice the rate of fp32 or better.

    GPUs since Ampere do, CPUs with AMX, and AMD's with AVX512-BF16; Intel's AVX512-BF16 takes two products in the time
    of two fp32 ones, so that converting is all loss.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        known: Mapping[str, Any] = torch.cpu.get_capabilities()
        amd = str(known.get("cpu_name", "")).startswith("AMD")
        return bool(known.get("amx_bf16") or (amd and known.get("avx512_bf16")))
    return False


def work_of(model: FrozenModel, inputs: Sequence[Tensor]) -> float:
    """Floating-point operations of the matrix products and convolutions of one sample's forward pass."""
    batch = [model.padded(x[:1]) for x in inputs]
    products = _Products()
    with torch.no_grad(), products:
        model.forward([x.clone() for x in batch])
    return products.operations / len(batch[0])


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of products; `torch.utils.flop_counter` loads the whole compiler for the same."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: float = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=result)
        return result


class InBf16(nn.Module):
    """A model whose weights were converted once: inputs are cast on the way in, outputs on the way out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.to(torch.bfloat16)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run in bfloat16; float32 in and out."""
        given, kept = _in(torch.bfloat16, list(inputs)), _in(torch.bfloat16, named)
        return _in(torch.float32, self.model(*given, **kept))


def _in(dtype: torch.dtype, result: Any) -> Any:
    """Tensors of floats, however deep they lie, in a dtype."""
    if isinstance(result, Tensor):
        return result.to(dtype) if result.is_floating_point() else result
    if isinstance(result, dict):
        return type(result)((key, _in(dtype, value)) for key, value in result.items())
    if isinstance(result, Sequence) and not isinstance(result, str):
        values = [_in(dtype, value) for value in result]
        return type(result)(*values) if hasattr(result, "_fields") else type(result)(values)  # type: ignore[call-arg]
    return result
