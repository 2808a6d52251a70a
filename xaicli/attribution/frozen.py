"""The frozen copy of a model: it only ever gives outputs and input gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xaicli.attribution.flow import Embeddings
from xaicli.attribution.given import Call
from xaicli.errors import XaiError

_LEAST = 2
"""No batch of one: some models squeeze it away."""


class FrozenModel:
    """A copy of a model, called with a batch of each input.

    Args:
        model: A private copy: evaluation mode, no gradients on weights.
        call: How it takes its inputs.
        device: Where to.
        batch: The one batch size it accepts, or None.
    """

    def __init__(self, model: nn.Module, call: Call, *, device: torch.device, batch: int | None) -> None:
        self.model: Any = model.to(device)
        self.call, self.device, self.batch = call, device, batch
        self.channels_last = False
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
        dtypes = {t.dtype for t in model.parameters() if t.is_floating_point()}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        if dtypes & {torch.float16, torch.bfloat16}:
            self.model.to(self.dtype)

    def __call__(self, inputs: Sequence[Tensor], embedded: Mapping[int, Tensor] = {}) -> Any:
        """Whatever the model returns for a batch.

        Args:
            inputs: All inputs, in the caller's order.
            embedded: {call of an embedding: what it answers instead of looking up}.
        """
        # cuDNN's recurrent layers have no backward in evaluation mode.
        with _without_cudnn(self._recurrent):
            if not embedded:
                return self.call(self.model, inputs)
            with Embeddings(embedded):
                return self.call(self.model, inputs)

    def forward(self, inputs: Sequence[Tensor], embedded: Mapping[int, Tensor] = {}) -> Any:
        """As a call; what the model cannot take becomes an error in one line.

        Raises:
            XaiError: The model fails on these inputs.
        """
        try:
            return self(inputs, embedded)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
            if is_memory_error(error):
                raise
            shapes = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in inputs)
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise XaiError(
                f"the model fails on inputs of shape {shapes}: {first}",
                hint="do the inputs fit the model? check the order, shapes and dtypes of --data, and --resize",
            ) from error

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


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or not."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


@contextmanager
def _without_cudnn(needed: bool) -> Iterator[None]:
    was = torch.backends.cudnn.enabled
    if needed:
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        if needed:
            torch.backends.cudnn.enabled = was


Reduce = Callable[[Any, Tensor], Tensor]
"""(what the model returned, units) -> (row,) scalars; `units`: which explanation a row is for."""
