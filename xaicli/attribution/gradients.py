"""Input gradients of many points at once, in chunks sized by shapes and memory alone, halved when memory runs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xaicli.attribution.frozen import IN_PLACE, BatchError, FrozenModel, Reduce, is_memory_error
from xaicli.attribution.given import first_line
from xaicli.attribution.lookups import Embedded
from xaicli.errors import XaiError

Arrange = Callable[[FrozenModel, Sequence[Tensor], Tensor], tuple[list[Tensor], Embedded]]
"""(model, points, units) -> the model's inputs, and what its embeddings answer."""

_CPU_TARGET = 24 << 20
"""Bytes of activations a chunk may hold on a CPU: about what stays in a core's share of the caches."""
_CPU_ROWS = (8, 256)
_CONVOLUTIONAL_ROWS = 16
"""Below so many rows a single thread's 1 x 1 convolutions run outside oneDNN, in another memory order."""
_GPU_ROWS = (32, 256)
_MEMORY_PART = 0.3
"""The share of all memory that is used, whatever is free of it now: the same call takes the same chunks."""
_FIRST_ROWS = 8


EAGER_CHUNKS = 16
"""Chunks before one is captured: that costs as much as two, and all memory that torch keeps is given back for it."""


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


@contextmanager
def differentiating() -> Iterator[None]:
    """What autograd cannot differentiate becomes an error in one line.

    Raises:
        XaiError: It cannot; memory that ran out stays the error that it is.
    """
    try:
        yield
    except RuntimeError as error:
        if is_memory_error(error) or "use_reentrant" in str(error):
            raise
        raise XaiError(
            f"the model answers, and autograd cannot differentiate it: {first_line(error).partition(' Hint:')[0]}",
            hint=IN_PLACE,
        ) from error


class Captured:
    """A CUDA graph of forward and input backward of a fixed number of rows: launching kernels costs time, too.

    Args:
        eager: What is captured.
        points: A chunk, (row, ...) each, which tells shapes; it is padded to the graph's rows.
        units: (row,).
        rows: How many rows the graph has.
    """

    def __init__(
        self,
        eager: Callable[[Sequence[Tensor], Tensor], list[Tensor]],
        points: Sequence[Tensor],
        units: Tensor,
        rows: int,
    ) -> None:
        self.rows = rows
        with torch.no_grad():
            self.points = [padded(point, rows) for point in points]
            self.units = padded(units, rows)
        device = self.units.device
        with torch.cuda.device(device):
            side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                self._run(eager)  # what is made once is made now; chunks before have chosen the kernels
            torch.cuda.current_stream(device).wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.gradients = self._run(eager)

    def _run(self, eager: Callable[[Sequence[Tensor], Tensor], list[Tensor]]) -> list[Tensor]:
        # Aliases: the points become part of autograd's graph, which the memory that is written to again must not.
        return [g.detach() for g in eager([point.detach() for point in self.points], self.units)]

    def replay(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """The input gradients at `points`, each (row, ...), of the explanations `units`, (row,)."""
        rows = len(units)
        with torch.no_grad():
            for kept, point in zip(self.points, points, strict=True):
                kept[:rows].copy_(point)
                if rows < self.rows:  # what the model left there may be anything
                    kept[rows:].copy_(point[-1:].expand_as(kept[rows:]))
            self.units[:rows].copy_(units)
            self.units[rows:].copy_(units[-1:].expand_as(self.units[rows:]))
            self.graph.replay()
            return [g[:rows].clone() for g in self.gradients]


def padded(batch: Tensor, rows: int) -> Tensor:
    """A copy of (row, ...) in memory of its own, the last row repeated up to `rows`."""
    if len(batch) == rows:
        return batch.detach().clone()
    return torch.cat([batch, batch[-1:].expand(rows - len(batch), *batch.shape[1:])]).detach()


class Gradients:
    """Gradients of the frozen model's targets with respect to its points, chunk by chunk.

    Args:
        model: The frozen model.
        reduce: What is differentiated.
        arrange: From points to what the model is called with.
        graphs: Capture each full chunk as a CUDA graph (CUDA only).
    """

    def __init__(self, model: FrozenModel, reduce: Reduce, arrange: Arrange, *, graphs: bool = True) -> None:
        self.model, self.reduce, self.arrange = model, reduce, arrange
        self.evaluations = 0
        self._rows = model.batch
        self._units: Tensor | None = None
        self._parent: Gradients | None = None
        self._captured: Captured | None = None
        self._chunks = 0
        """Full chunks that a graph could have computed."""
        self._reentrant, self._untried = False, True
        self._graphs = graphs and model.device.type == "cuda"

    def only(self, units: Tensor) -> Gradients:
        """The same for some of the units, renumbered from 0; evaluations are counted here, and graphs are shared."""
        part = Gradients(self.model, self.reduce, self.arrange, graphs=False)
        # Of a part of a part, too, these are the units of the whole: the model's targets are numbered by them.
        part._units = units if self._units is None else self._units[units]
        part._parent, part._rows = self, self._rows
        part._graphs = self._graphs
        return part

    def _wholes(self) -> Iterator[Gradients]:
        """What this is a part of, from the nearest on."""
        whole = self._parent
        while whole is not None:
            yield whole
            whole = whole._parent

    def count(self, rows: int) -> None:
        """Add to the evaluations made."""
        self.evaluations += rows
        if self._parent is not None:
            self._parent.count(rows)

    def __call__(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """One chunk; a full one of a GPU through a graph that is captured once.

        Args:
            points: One batch per entry, (row, ...); given up to the model, which may change them.
            units: (row,), which explanation each row is for.

        Returns:
            One gradient per entry, (row, ...), in the points' dtype.

        Raises:
            XaiError: The outputs do not depend on the inputs through autograd, or autograd cannot differentiate them.
        """
        units = units if self._units is None else self._units[units]
        # A graph computes all its rows: of a chunk that is much smaller most would be for nothing.
        if self.is_known and 2 * len(units) >= self.rows:
            return self._replayed(points, units)
        return self._eager(points, units)

    def _eager(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        entry = torch.zeros((), device=points[0].device, requires_grad=True)
        gradients: list[Tensor | None] = [None] * len(points)
        with torch.enable_grad():
            enter: Any = _Entry.apply
            entered = [enter(point, entry, gradients, i) for i, point in enumerate(points)]
            scalars = self.reduce(self.model.forward(*self.arrange(self.model, entered, units), made=True), units)
            total = scalars.sum()
        if not scalars.requires_grad:
            raise XaiError(
                "the model's output does not depend on its inputs through autograd",
                hint="is there torch.no_grad, detach, argmax, .long() or .data inside forward? saliency needs the "
                "gradient, and of autograd.grad inside forward create_graph=True; ids go in as int64, not as bytes or "
                "floats",
            )
        gradients[:] = [None] * len(points)  # Of a `backward` inside forward.
        with differentiating():
            self._differentiate(total, entry)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, points, strict=True)]

    def _differentiate(self, total: Tensor, entry: Tensor) -> None:
        if not self._reentrant:
            try:
                torch.autograd.grad(total, entry, allow_unused=True, retain_graph=self._untried)
                self._untried = False
                return
            except RuntimeError as error:
                if "use_reentrant" not in str(error):
                    raise
                self._reentrant = True
        # Reentrant checkpointing knows `backward` alone; the copy's weights take no gradient.
        torch.autograd.backward(total)

    def _replayed(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """The same through a captured CUDA graph of one padded chunk; eager where the model cannot be captured."""
        if self._parent is not None:
            return self._parent._replayed(points, units)
        if not self._graphs:
            return self._eager(points, units)
        rows = max(self.rows, len(units))
        if self._captured is None or self._captured.rows < rows:
            self._chunks += 1
            if self._chunks <= EAGER_CHUNKS:
                return self._eager(points, units)
            self._captured, failed = None, False
            try:
                self._captured = Captured(self._eager, points, units, rows)
            except (RuntimeError, XaiError) as error:
                if is_memory_error(error):
                    raise
                failed = True
            if failed or self._captured is None:
                torch.cuda.synchronize(self.model.device)
                self._graphs = False
                return self._eager(points, units)
        return self._captured.replay(points, units)

    @property
    def is_known(self) -> bool:
        """Whether chunks go through a graph, whose rows are known."""
        return self._graphs and self.model.batch is None and self._rows is not None

    @property
    def rows(self) -> int:
        """How many rows the next chunk takes: a few until it is known what a row needs."""
        return self.model.at_once(self._rows or _FIRST_ROWS)

    def halve(self) -> None:
        """Memory ran out.

        Raises:
            XaiError: One row is already too much.
        """
        if self.rows == 1 or self.model.batch is not None:
            raise XaiError(
                f"out of memory with {'a single row' if self.rows == 1 else f'{self.rows} rows'}",
                hint="use a smaller input or model, or another --device",
            )
        self._rows = self.rows // 2
        self._captured = None
        for whole in self._wholes():
            whole._rows, whole._captured = self._rows, None
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def first(self, points: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """The first chunk; what autograd keeps of it says how many rows the following ones take."""
        if self._rows is not None:
            return self(points, units)
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> tuple[Tensor, int]:
            try:
                memory = tensor.untyped_storage().data_ptr()
            except RuntimeError as error:  # one that carries a forward-mode derivative
                raise RuntimeError("it is not for saved tensor hooks") from error
            kept[memory] = tensor.untyped_storage().nbytes()
            return tensor.detach(), _version(tensor)

        def unpack(packed: tuple[Tensor, int]) -> Tensor:
            tensor, version = packed
            if _version(tensor) != version:  # Which autograd checks of itself, but for what such hooks keep.
                raise RuntimeError("a tensor that the gradient needs has been modified by an inplace operation")
            return tensor

        own = {p.untyped_storage().data_ptr() for p in (*self.model.model.parameters(), *self.model.model.buffers())}
        units = units if self._units is None else self._units[units]
        kept_points = [point.clone() for point in points]
        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
                gradients = self._eager(points, units)
        except (RuntimeError, XaiError) as error:
            if "saved tensor hooks" not in str(error):
                raise
            # `torch.func` and forward mode know no such hooks: what a row needs stays unknown, and rows few.
            self._rows = _FIRST_ROWS
            return self._eager(kept_points, units)
        used = sum(size for pointer, size in kept.items() if pointer not in own)
        self._rows = self._fitting(max(1, used // max(len(units), 2)))
        for whole in self._wholes():
            whole._rows = self._rows  # of the parts that follow, and of the graph that all share
        return gradients

    def _fitting(self, per_row: int) -> int:
        on_gpu = self.model.device.type == "cuda"
        low, high = _GPU_ROWS if on_gpu else _CPU_ROWS
        if self.model.channels_last:
            low = max(low, _CONVOLUTIONAL_ROWS)
        high = max(1, min(high, int(_MEMORY_PART * _memory(self.model.device) / per_row)))
        return _power_of_two(max(min(low, high), min(high, high if on_gpu else _CPU_TARGET // per_row)))


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place, which those of inference mode do not count."""
    return -1 if tensor.is_inference() else tensor._version


def _power_of_two(rows: int) -> int:
    return 1 << max(0, rows.bit_length() - 1)


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float(4 << 30)


def _chunk(
    gradients: Gradients, make: Callable[[int, int], tuple[list[Tensor], Tensor]], first: int, last: int
) -> list[Tensor] | None:
    """The gradients of some rows; None where memory ran out."""
    try:
        points, units = make(first, last)
        return gradients(points, units) if first else gradients.first(points, units)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        if not is_memory_error(error):
            raise
        return None


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
    first, failed = 0, None
    while first < total:
        # Every stream starts alike, whether the size is known by now or not: equal calls take equal chunks.
        is_full = bool(first or gradients.model.batch or gradients.is_known)
        size = gradients.rows if is_full else min(_FIRST_ROWS, gradients.rows)
        last = min(total, first + size)
        try:
            grads = _chunk(gradients, make, first, last)
        except BatchError as error:
            failed = failed or error
            if not gradients.model.takes_fewer(last - first):
                raise failed from failed.__cause__
            continue
        if grads is None:
            # Not where the error was caught: it holds what the chunk allocated.
            gradients.halve()
            continue
        gradients.count(last - first)
        take(first, last, grads)
        progress(last - first)
        first = last


@dataclass
class Problem:
    """What is differentiated: the points of some units, a unit being a (sample, target), and the model behind one call.

    Attributes:
        inputs: The clean points, one tensor an entry, each (unit, ...), float.
        baselines: One per entry, broadcasting to it.
        sigma: Standard deviation of the noise per entry, broadcasting to it.
        gradients: Gradients of the units' targets at points.
        forward: (points, units) -> (row,), the explained scalars, never in bf16.
        probability: (points, units) -> (row,), the targets' probabilities, or the scalars of a function.
        clean: (unit,), the explained scalars of the inputs themselves.
        progress: Told the number of rows done.
        stem: The first layer (`stem.Stem`), where it can be done once per path.
        gradients_behind_stem: As `gradients`, with respect to the stem's output.
    """

    inputs: list[Tensor]
    baselines: list[Tensor]
    sigma: list[Tensor]
    gradients: Gradients
    forward: Callable[[Sequence[Tensor], Tensor], Tensor]
    probability: Callable[[Sequence[Tensor], Tensor], Tensor]
    clean: Tensor
    progress: Callable[[int], None]
    stem: Any = None
    gradients_behind_stem: Gradients | None = None

    @property
    def n_units(self) -> int:
        """How many explanations are computed side by side."""
        return len(self.inputs[0])

    @property
    def evaluations(self) -> int:
        """Gradient evaluations made."""
        behind = self.gradients_behind_stem
        return self.gradients.evaluations + (behind.evaluations if behind else 0)

    def only(self, units: Tensor) -> Problem:
        """The problem of some of the units."""
        forward, probability = self.forward, self.probability
        return Problem(
            inputs=[x[units] for x in self.inputs],
            baselines=self.pick(self.baselines, units),
            sigma=self.pick(self.sigma, units),
            gradients=self.gradients.only(units),
            forward=lambda points, rows: forward(points, units[rows]),
            probability=lambda points, rows: probability(points, units[rows]),
            clean=self.clean[units],
            progress=self.progress,
            stem=self.stem,
            gradients_behind_stem=self.gradients_behind_stem.only(units) if self.gradients_behind_stem else None,
        )

    def pick(self, values: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """Rows of per-unit tensors; what broadcasts over units stays as it is."""
        return [value if len(value) == 1 else value[units] for value in values]


@dataclass(frozen=True)
class Attributions:
    """One method's result.

    Attributes:
        total: Per entry (unit, ...).
        halves: The same from two halves of the random draws, per entry (unit, ...); None where there are no two.
        sums: (unit,), the paths' mean sum of attributions over all entries; None without a path.
        differences: (unit,), the paths' mean f(x) - f(baseline), likewise.
    """

    total: list[Tensor]
    halves: tuple[list[Tensor], list[Tensor]] | None = None
    sums: Tensor | None = None
    differences: Tensor | None = None


def draws_of(inputs: Sequence[Tensor], n: int, *, seed: int, in_pairs: bool = False) -> list[Tensor]:
    """Standard normal draws shared by all samples, so that a sample's map does not depend on its neighbours.

    They are the CPU's on every device: a map does not depend on where it is computed.

    Args:
        n: How many.
        in_pairs: Every second draw is the one before with its sign turned: the errors of a pair partly cancel.

    Returns:
        Per entry (n + 1, ...): row 0 is zero, the clean input.
    """
    found: list[Tensor] = []
    for position, x in enumerate(inputs):
        eps = torch.zeros((n + 1, *x.shape[1:]), dtype=x.dtype)
        for draw in range(n):
            if in_pairs and draw % 2:
                eps[draw + 1] = -eps[draw]
                continue
            # One seed per draw: more draws repeat the earlier ones.
            number = (seed * 1_000_003 + draw * 101 + position) & 0x7FFF_FFFF_FFFF_FFFF
            generator = torch.Generator().manual_seed(number)
            eps[draw + 1] = torch.randn(x.shape[1:], generator=generator, dtype=x.dtype)
        found.append(eps.to(x.device))
    return found
