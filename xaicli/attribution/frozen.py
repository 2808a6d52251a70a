"""A private copy of the model that only ever gives outputs and input gradients; the caller's stays as it was."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from xaicli.errors import XaiError

_Module = TypeVar("_Module", bound=nn.Module)
_STATIC = re.compile(r"size\(\)\[0\] == (\d+)")
_LEAST = 2
"""No batch of one: some models squeeze it away."""
_TRAINING_OPS = {"batch_norm": 5, "dropout": 2, "_native_batch_norm_legit": 5, "native_dropout": 2}
"""Operators whose argument at that position says that they run in training mode."""


class FrozenModel:
    """A frozen copy of a model, called with a list of input batches.

    Attributes:
        model: The copy: evaluation mode, no gradients on weights.
        batch: The one batch size the model accepts, or None.
    """

    def __init__(
        self, model: nn.Module, *, names: Sequence[str], device: torch.device, static_batch: int | None
    ) -> None:
        self.model = _private_copy(model).to(device)
        self.model.requires_grad_(False)
        self.batch = static_batch
        self.channels_last = False
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in self.model.modules())
        self.device = device
        self.keywords = _keywords(model, names)
        dtypes = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        if dtypes & {torch.float16, torch.bfloat16}:
            self.model.to(self.dtype)

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Whatever the model returns for a batch."""
        # cuDNN's recurrent layers have no backward in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False) if self._recurrent else contextlib.nullcontext():
            return self._called(inputs)

    def _called(self, inputs: Sequence[Tensor]) -> Any:
        if self.keywords:
            return self.model(**dict(zip(self.keywords, inputs, strict=True)))
        return self.model(*inputs)

    def forward(self, inputs: Sequence[Tensor]) -> Any:
        """As a call, explained: a batch size or dtype the model cannot take becomes an error in one line.

        Raises:
            XaiError: The model fails on these inputs.
        """
        try:
            return self(inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
            if _is_memory(error):
                raise
            shapes = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in inputs)
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise XaiError(
                f"the model fails on inputs of shape {shapes}: {first}",
                hint="do the inputs fit the model? check the order, shapes and dtypes of --data, and --resize",
            ) from error

    def learn_batch(self, sample: Sequence[Tensor], outputs: Callable[[Any], Tensor]) -> bool:
        """After a failure: find out, with one sample, whether the model takes one batch size only.

        Returns:
            Whether another size than before is now used.
        """
        if self.batch is not None:
            return False
        try:
            with torch.no_grad():
                one = outputs(self([x[:1].clone() for x in sample]))
            self.batch = 1 if one.shape[0] == 1 else None
        except Exception as error:
            match = _STATIC.search(str(error))
            self.batch = int(match.group(1)) if match else None
        return self.batch is not None

    def arranged(self, batch: Tensor) -> Tensor:
        """A batch as the model reads it fastest, padded."""
        batch = self.padded(batch)
        if self.channels_last and batch.ndim == 4:
            return batch.contiguous(memory_format=torch.channels_last)
        return batch

    def padded(self, batch: Tensor) -> Tensor:
        """The batch, repeated up to the size the model needs."""
        size = self.batch or max(_LEAST, len(batch))
        if len(batch) >= size:
            return batch
        return torch.cat([batch, batch[-1:].expand(size - len(batch), *batch.shape[1:])])


def _is_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


is_memory_error = _is_memory


def _keywords(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The inputs' names when the model's forward takes all of them by name, else ()."""
    if not all(names) or isinstance(model, fx.GraphModule):
        return ()
    try:
        known = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return ()
    return tuple(names) if all(name in known for name in names) else ()


def twin_of(model: _Module) -> _Module:
    """A deep copy."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its pytrees.
        return copy.deepcopy(model)


def fingerprint(model: nn.Module) -> str:
    """A hash of the model's structure and every weight."""
    digest = hashlib.sha256(model.code.encode() if isinstance(model, fx.GraphModule) else str(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _private_copy(model: nn.Module) -> nn.Module:
    try:
        twin = twin_of(model)
    except Exception as error:
        raise XaiError(
            f"the model cannot be copied ({type(error).__name__}: {error}), and the caller's own must stay unchanged",
            hint="give a freshly built model, or its checkpoint",
        ) from error
    for module in twin.modules():
        # The caller's own hooks would see every pass; and gradients they hold are no part of the copy.
        module._forward_hooks.clear()
        module._backward_hooks.clear()
        for parameter in module.parameters(recurse=False):
            parameter.grad = None
    _refuse_batch_statistics(twin)
    if isinstance(twin, fx.GraphModule):
        _refuse_training_graph(twin)
    # An exported graph has no mode: it was checked above.
    with contextlib.suppress(NotImplementedError):
        twin.eval()
    return twin


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise XaiError(
                f"batch norm {name} keeps no running statistics: every output depends on its batch mates",
                hint="train with track_running_stats=True, or use group norm",
            )


def _refuse_training_graph(model: fx.GraphModule) -> None:
    for node in model.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(getattr(node.target, "__name__", node.target)).split(".")[0]
        position = _TRAINING_OPS.get(name)
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise XaiError(
                f"the graph was exported in training mode ({name}): every pass would depend on its batch mates",
                hint="call model.eval() before torch.export.export, or save with run.save_checkpoint",
            )
