"""Copies from a CUDA device to the host that no step waits for, and what follows from scores that live there.

What follows from scores is computed beside the training, of a copy of them, and the batch is copied by that stream too
into pinned memory, behind which a flag is copied: whether it arrived is
read from the host's memory. So nothing is asked of the device while a training step runs, nor by another thread, which
would spoil a graph that is being captured; and what arrived is kept whatever becomes of the device.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FIRST_BYTES = 4 << 20
MOST_BYTES = 64 << 20
"""Pinned memory of a run, unless one batch alone is larger; and of the device's what is copied to be looked at."""
MOST_COPIED = 16 << 20
"""Bytes of a batch that is copied on its device to be looked at beside the training; a larger one is where it lies."""
_ALIGNED = 64
FLAG_BYTES = 8
_NAP = 2e-4


class Event(Protocol):
    """A moment on a device's stream."""

    def query(self) -> bool:
        """Whether it has passed."""


class _Beside(NamedTuple):
    """A stream beside the training's, a moment of the latter, and the bytes of a flag."""

    side: Any
    staged: Any
    ones: torch.Tensor


class Driver:
    """What is asked of CUDA; tests have another."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, _Beside] = {}
        self._pool: Any = None

    def is_capturing(self) -> bool:
        """Whether a graph of this thread's stream is being captured."""
        import torch

        return torch.cuda.is_current_stream_capturing()

    def pinned(self, n: int) -> torch.Tensor:
        """(n,) bytes of pinned host memory."""
        import torch

        return torch.empty(n, dtype=torch.uint8, pin_memory=True)

    def upload(self, host: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A pinned tensor on a device, by the current stream."""
        return host.to(device, non_blocking=True)

    def is_plain(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is its values and nothing else, as a subclass may not be."""
        import torch

        return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided

    def empty(self, like: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Memory on a device for values such as a tensor's."""
        import torch

        return torch.empty(like.shape, dtype=like.dtype, device=device)

    @contextmanager
    def beside(self, device: torch.device) -> Iterator[Any]:
        """A stream of their own for this block's operations, behind what the current one does so far."""
        import torch

        with torch.cuda.device(device):
            if device not in self._streams:
                ones = torch.full((FLAG_BYTES,), 1, dtype=torch.uint8, device=device)
                self._streams[device] = _Beside(cast(Any, torch.cuda.Stream)(device), self.moment(), ones)
            side = self._streams[device].side
            current = torch.cuda.current_stream(device)
            if current == side:
                yield side
                return
            side.wait_stream(current)
            with torch.cuda.stream(side):
                yield side

    def capture(self, device: torch.device, work: Callable[[], Packed]) -> tuple[Packed, Callable[[], None]]:
        """Capture what the stream beside does in `work`: what it gives, and what has that computed, then and again."""
        import torch

        graph = torch.cuda.CUDAGraph()
        with self.beside(device):
            # Other threads may do what they like meanwhile, and nothing is waited for, as `torch.cuda.graph` would.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                given = work()
            finally:
                graph.capture_end()
        self._pool = graph.pool()
        return given, graph.replay

    def moment(self) -> Event:
        """A moment of a stream that has not come: nothing waits for it until `replay` has set it."""
        import torch

        return cast(Event, cast(Any, torch.cuda.Event)())

    def replay(
        self,
        graph: Callable[[], None],
        there: list[tuple[torch.Tensor, torch.Tensor]],
        here: list[tuple[torch.Tensor, torch.Tensor]],
        out: list[tuple[torch.Tensor, torch.Tensor]],
        done: Any,
    ) -> None:
        """Launch a captured graph beside what the current stream does, and all copies around it.

        Few calls, since each of them keeps a step waiting.

        Args:
            graph: What launches it.
            there: (an input, its value), copied by the current stream; one at least.
            here: (an input, its value in pinned memory), copied by the stream beside, behind them.
            out: (pinned memory, what the graph gave), copied behind the graph, in this order.
            done: The moment when all that was done the last time, which is waited for by the device; and this time.
        """
        import torch

        device = there[0][0].device
        is_here = device.index == torch.cuda.current_device()
        with torch.no_grad(), nullcontext() if is_here else torch.cuda.device(device):
            side = self._streams[device].side
            staged, current = self._streams[device].staged, torch.cuda.current_stream(device)
            current.wait_event(done)
            for to, value in there:
                to.copy_(value)
            staged.record(current)
            side.wait_event(staged)
            torch.cuda.set_stream(side)
            try:
                for to, value in here:
                    to.copy_(value, non_blocking=True)
                graph()
                for to, value in out:
                    to.copy_(value, non_blocking=True)
                done.record(side)
            finally:
                torch.cuda.set_stream(current)

    def ones(self, device: torch.device) -> torch.Tensor:
        """The bytes of a flag, on a device."""
        with self.beside(device):
            return self._streams[device].ones

    def download(self, source: torch.Tensor, data: torch.Tensor, flag: torch.Tensor) -> Event:
        """Copy bytes to pinned memory by a stream of their own, behind what the current stream does; then the flag."""
        import torch

        with self.beside(source.device) as side:
            data.copy_(source, non_blocking=True)
            flag.copy_(self._streams[source.device].ones, non_blocking=True)
            # The source is held until the flag is there. `record_stream` would be another way, but has a tensor that is
            # freed ask the device for an event: where the context has died, the process ends with that.
            event = cast(Any, torch.cuda.Event)()
            event.record(side)
        return cast(Event, event)


class _Ring:
    """A piece of memory that is given out in one order, and taken back in any."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.size = len(memory)
        self._at = 0
        self._held: deque[int] = deque()
        self._returned: set[int] = set()

    def take(self, n: int) -> int | None:
        """Where `n` bytes are free; None where they are not."""
        if not self._held:
            self._at = 0
        begin = self._held[0] if self._held else self.size
        if self._held and self._at <= begin:  # what is held lies behind and before
            found = self._at if begin - self._at >= n else None
        elif self.size - self._at >= n:
            found = self._at
        else:
            found = 0 if self._held and begin >= n else None
        if found is not None:
            self._held.append(found)
            self._at = found + n
        return found

    def give_back(self, at: int) -> None:
        """Take back what was given out there; it is free once all before it is."""
        self._returned.add(at)
        while self._held and self._held[0] in self._returned:
            self._returned.remove(self._held.popleft())


class Slot:
    """A place in pinned memory.

    Attributes:
        data: Its bytes.
        flag: The bytes behind them, 0 until what is copied here has arrived.
    """

    def __init__(self, ring: _Ring, at: int, n: int) -> None:
        self._ring, self._place = ring, at
        self.data = ring.memory[at : at + n]
        self.flag = ring.memory[at + padded(n) : at + padded(n) + FLAG_BYTES]
        self._flag: NDArray[np.uint8] = self.flag.numpy()
        self._flag[:] = 0

    @property
    def is_full(self) -> bool:
        """Whether what is copied here has arrived; asks nothing of the device."""
        return bool(self._flag.all())

    def give_back(self) -> None:
        """The memory may be used again."""
        self._ring.give_back(self._place)


def padded(n: int) -> int:
    """Bytes that `n` take where what follows is aligned."""
    return -(-n // _ALIGNED) * _ALIGNED


class Pinned:
    """Pinned host memory, bounded: a ring that is made larger for larger batches, up to `MOST_BYTES`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._ring: _Ring | None = None

    def take(self, n: int, *, is_alone: bool) -> Slot | None:
        """A place of `n` bytes; None where there is room only after others were given back.

        Args:
            n: Bytes.
            is_alone: Whether nothing is held: what is larger than all there may be is then given memory of its own.
        """
        wanted = padded(n) + _ALIGNED
        if wanted > MOST_BYTES:
            return Slot(_begun(self._driver.pinned(wanted), wanted), 0, n) if is_alone else None
        if self._ring is None or (4 * wanted > self._ring.size and self._ring.size < MOST_BYTES):
            size = FIRST_BYTES
            while size < 4 * wanted and size < MOST_BYTES:
                size *= 2
            self._ring = _Ring(self._driver.pinned(size))  # the one before lives as long as what lies in it
        at = self._ring.take(wanted)
        return None if at is None else Slot(self._ring, at, n)


def _begun(memory: torch.Tensor, n: int) -> _Ring:
    ring = _Ring(memory)
    ring.take(n)
    return ring


class _Place(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int


class Packed(NamedTuple):
    """The bytes of tensors of one device, one behind the other, and where each is."""

    source: torch.Tensor
    places: list[_Place]


def _packed(tensors: Mapping[str, torch.Tensor]) -> Packed:
    """Contiguous tensors of one device, copied by one kernel."""
    import torch

    # Widest first, so that each lies aligned in the one buffer.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    # A single number may have any stride and is contiguous all the same.
    flat = [tensors[name].as_strided((tensors[name].numel(),), (1,)) for name in order]
    pieces = [one.view(torch.uint8) for one in flat]
    places = [
        _Place(name, tensors[name].dtype, tuple(tensors[name].shape), len(piece))
        for name, piece in zip(order, pieces, strict=True)
    ]
    return Packed(torch.cat(pieces), places)


def packed(tensors: Mapping[str, torch.Tensor]) -> Packed:
    """Tensors of one device, in memory of their own and of types that numpy knows."""
    return _packed({name: _plain(tensor) for name, tensor in tensors.items()})


def copied_there(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Copies of tensors of one device, made there by one kernel: the memory they share, and {name: copy}."""
    memory, places = _packed({name: _contiguous(tensor.detach()) for name, tensor in tensors.items()})
    copies, at = {}, 0
    for name, dtype, shape, size in places:
        copies[name] = memory[at : at + size].view(dtype).view(shape)
        at += size
    return memory, copies


def views(raw: NDArray[np.uint8], places: list[_Place]) -> dict[str, NDArray[Any]]:
    """{name: array} of the bytes of packed tensors, on the host."""
    arrays, at = {}, 0
    for name, dtype, shape, size in places:
        arrays[name] = raw[at : at + size].view(_numpy_dtype(dtype)).reshape(shape)
        at += size
    return arrays


class Copy:
    """Tensors of one device on their way to the host, one behind the other."""

    def __init__(self, tensors: Packed, room: Callable[[int], Slot], driver: Driver) -> None:
        """
        Args:
            tensors: In memory that nobody writes to before this copy is made.
            room: Gives pinned memory; may wait for it.
            driver: Starts the copy.
        """
        self._source: torch.Tensor | None  # held until it was read
        self._source, self._places = tensors
        self._slot = room(len(self._source))
        self._driver = driver
        try:
            self._event = driver.download(self._source, self._slot.data, self._slot.flag)
        except Exception:
            self._slot.give_back()
            raise

    @property
    def has_arrived(self) -> bool:
        """Whether it has; asks nothing of the device."""
        return self._slot.is_full

    def ask(self) -> bool:
        """Whether it has arrived, as the device says.

        Raises:
            RuntimeError: The device has failed.
        """
        return self.has_arrived or (not self._driver.is_capturing() and self._event.query())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What arrived: views of memory that is used again after `let_go`."""
        return views(self._slot.data.numpy(), self._places)

    def let_go(self) -> None:
        """Give back the memory here and there."""
        self._source = None
        self._slot.give_back()


def leave_to_python(*functions: Any) -> None:
    """Have `torch.compile` call functions as they are, in a break of the graph, and compile nothing that they call.

    Compiled, every batch of another length, step or epoch would be compiled anew. `torch.compiler.disable` says the
    same, but loads the compiler, which takes a second: this asks nothing but the hook it goes through.
    """
    torch = sys.modules.get("torch")
    hook = None if torch is None else sys.modules.get("torch._C._dynamo.eval_frame")
    for function in functions:
        function._torchdynamo_disable = True
        function._torchdynamo_disable_msg = "it records"
        if hook is not None and hasattr(hook, "set_code_exec_strategy"):
            skip = hook._FrameExecStrategy(hook._FrameAction.SKIP, hook._FrameAction.SKIP)
            hook.set_code_exec_strategy(function.__code__, skip)


def nap(begun: float) -> None:
    """Wait a little for a device, longer the longer it takes: without keeping a core busy."""
    time.sleep(min(2e-3, max(_NAP, (time.monotonic() - begun) / 4)))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor of a type numpy knows."""
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return _contiguous(tensor)


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whose bytes are its values, in order."""
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return tensor.contiguous()


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(dtype).removeprefix("torch."))
