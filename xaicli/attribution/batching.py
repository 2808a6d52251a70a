"""Input gradients of many points at once: chunks sized from measured memory and speed, halved when memory runs out."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from xaicli.attribution.chunks import Chunks, learned, remember
from xaicli.attribution.cuda_graph import Captured
from xaicli.attribution.frozen import FrozenModel, is_memory_error
from xaicli.errors import XaiError

Reduce = Callable[[Any, Tensor], Tensor]
"""(what the model returned, units) -> (batch,) scalars to differentiate; `units`: which explanation a row is for."""

_CPU_TARGET = 24 << 20
"""Bytes of activations a chunk may hold on a CPU: about what stays in a core's share of the caches."""
_CPU_ROWS = (8, 256)
_CONVOLUTIONAL_ROWS = 16
"""Below so many rows a single thread's 1 x 1 convolutions run outside oneDNN, in another memory order."""
_GPU_ROWS = (32, 512)
_MEMORY_PART = 0.4
_FIRST_ROWS = 8
_WORTH_TUNING_SECONDS = 20.0


class _Entry(torch.autograd.Function):
    """Where points enter the model: no leaves, so an in-place ReLU may meet them, and no copy of them either.

    The points are given up to the model; their gradient is left in `gradients[place]`.
    """

    @staticmethod
    def forward(ctx: Any, point: Tensor, entry: Tensor, gradients: list[Tensor | None], place: int) -> Tensor:
        del entry
        ctx.gradients, ctx.place = gradients, place
        ctx.mark_dirty(point)
        return point

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[None, Tensor, None, None]:
        ctx.gradients[ctx.place] = outputs[0]
        return None, outputs[0].new_zeros(()), None, None


class Gradients:
    """Gradients of the frozen model's targets with respect to its inputs, chunk by chunk.

    Args:
        model: The frozen model.
        reduce: What is differentiated.
        constants: Inputs that are only passed through, {position: (unit, ...)}.
        n_inputs: How many inputs the model takes.
        graphs: Capture each full chunk as a CUDA graph (CUDA only).
    """

    def __init__(
        self, model: FrozenModel, reduce: Reduce, *, constants: dict[int, Tensor], n_inputs: int, graphs: bool = True
    ) -> None:
        self.model = model
        self.reduce = reduce
        self.constants = constants
        self.n_inputs = n_inputs
        self.evaluations = 0
        self._chunks: Chunks | None = None
        self._units: Tensor | None = None
        self._parent: Gradients | None = None
        self._captured: Any = None
        self._graphs = graphs and model.device.type == "cuda"

    @property
    def sized(self) -> bool:
        """Whether the chunk size is known."""
        return self._chunks is not None or self.model.batch is not None

    def only(self, units: Tensor) -> Gradients:
        """The same for some of the units, renumbered from 0; evaluations are counted here."""
        part = Gradients(self.model, self.reduce, constants=self.constants, n_inputs=self.n_inputs, graphs=False)
        part._units, part._parent = units, self
        return part

    def count(self, rows: int) -> None:
        """Add to the evaluations made."""
        self.evaluations += rows
        if self._parent is not None:
            self._parent.count(rows)

    def arrange(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """The model's inputs in call order for rows of points, padded to the batch the model needs."""
        free = iter(points)
        rows = [self.constants[i][units] if i in self.constants else next(free) for i in range(self.n_inputs)]
        return [self.model.arranged(row) for row in rows]

    def __call__(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """One chunk.

        Args:
            points: One batch per differentiable input, (row, ...); given up to the model, which may change them.
            units: (row,), which explanation each row is for.

        Returns:
            One gradient per differentiable input, (row, ...), in the points' dtype.

        Raises:
            XaiError: The outputs do not depend on the inputs through autograd.
        """
        units = units if self._units is None else self._units[units]
        if self._graphs and self.model.batch is None:
            return self._replayed(points, units)
        return self._eager(points, units)

    def _eager(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        entry = torch.zeros((), device=points[0].device, requires_grad=True)
        gradients: list[Tensor | None] = [None] * len(points)
        with torch.enable_grad():
            enter: Any = _Entry.apply
            entered = [enter(point, entry, gradients, i) for i, point in enumerate(points)]
            scalars = self.reduce(self.model.forward(self.arrange(entered, units)), units)
            total = scalars.sum()
        if not scalars.requires_grad:
            raise XaiError(
                "the model's output does not depend on its inputs through autograd",
                hint="is there torch.no_grad, detach, argmax or .data inside forward? saliency needs the gradient",
            )
        torch.autograd.grad(total, entry, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, points, strict=True)]

    def _replayed(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """The same through a captured CUDA graph of one padded chunk; eager where the model cannot be captured."""
        rows = len(units)
        if self._captured is None or self._captured.rows < rows:
            try:
                self._captured = Captured(self._eager, points, units)
            except RuntimeError:
                torch.cuda.synchronize()
                self._graphs = False
                return self._eager(points, units)
        captured: Captured = self._captured
        return captured.replay(points, units)

    def chunks(self, points: Sequence[Tensor], total: int) -> Chunks:
        """The chunk size for a stream of `total` rows: the model's own, what was learned before, or a first try."""
        weights = [(tuple(p.shape), p.dtype) for p in self.model.model.parameters()]
        about = (self.model.device.type, torch.get_num_threads(), [tuple(p.shape[1:]) for p in points], weights)
        key = hashlib.sha256(repr(about).encode()).hexdigest()[:32]
        if self.model.batch is not None:
            return Chunks(self.model.batch, (1, self.model.batch))
        rows = learned(key)
        if self._chunks is None and rows:
            self._chunks = Chunks(rows, (1, rows))
        self._key = key
        return self._chunks or Chunks(min(total, _FIRST_ROWS), (1, _FIRST_ROWS))

    def measured(self, points: Sequence[Tensor], units: Tensor, total: int) -> tuple[list[Tensor], Chunks]:
        """The first chunk, and the size for the next ones from what autograd kept for it and how long it took."""
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {p.untyped_storage().data_ptr() for p in (*self.model.model.parameters(), *self.model.model.buffers())}
        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gradients = self._eager(points, units if self._units is None else self._units[units])
        seconds = time.perf_counter() - start
        rows = len(units)
        per_row = max(1, sum(size for pointer, size in kept.items() if pointer not in own) // rows)
        on_gpu = self.model.device.type == "cuda"
        low, high = _GPU_ROWS if on_gpu else _CPU_ROWS
        if self.model.channels_last:
            low = max(low, _CONVOLUTIONAL_ROWS)
        high = max(1, min(high, int(_MEMORY_PART * _free_memory(self.model.device) / per_row)))
        low = min(low, high)
        found = _power_of_two(max(low, min(high, high if on_gpu else _CPU_TARGET // per_row)))
        self._chunks = Chunks(found, (low, high), tuning=seconds * total / rows > _WORTH_TUNING_SECONDS)
        return gradients, self._chunks

    def remember(self) -> None:
        """Keep the size found for the next call in this process."""
        if self._chunks is not None:
            remember(self._key, self._chunks.rows)


def _power_of_two(rows: int) -> int:
    return 1 << max(0, rows.bit_length() - 1)


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float(4 << 30)


def run(
    gradients: Gradients,
    total: int,
    make: Callable[[int, int], tuple[list[Tensor], Tensor]],
    take: Callable[[int, int, list[Tensor]], None],
    progress: Callable[[int], None],
) -> None:
    """Stream `total` rows through the model.

    Args:
        make: (first, last) -> points and units of those rows.
        take: (first, last, gradients) -> None: accumulates.
        progress: Told how many rows are done after each chunk.
    """
    if total <= 0:
        return
    chunks = gradients.chunks(make(0, 1)[0], total)
    first = 0
    while first < total:
        # Every stream starts alike, whether the size is known by now or not: equal calls take equal chunks.
        size = chunks.next() if first or gradients.model.batch else min(_FIRST_ROWS, chunks.next())
        last = min(total, first + size)
        start = time.perf_counter()
        try:
            points, units = make(first, last)
            if gradients.sized:
                grads = gradients(points, units)
            else:
                grads, chunks = gradients.measured(points, units, total)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            if not is_memory_error(error):
                raise
            chunks.halve()
            if gradients.model.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        if last - first == size:
            chunks.took(size, time.perf_counter() - start)
        gradients.count(last - first)
        take(first, last, grads)
        progress(last - first)
        first = last
    gradients.remember()
