"""A make-believe CUDA device: tensors that cannot be read, copies that arrive when told to, a dying context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from xaicli.recorder.device import Driver, Packed
from xaicli.recorder.run import Run
from xaicli.recorder.transfer import Transfers


class OnDevice(torch.Tensor):
    """A tensor on the device: reading it waits for the device, which no call may do."""

    is_cuda = True
    is_cpu = False

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return getattr(self, "_where", torch.device("cpu"))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("cpu", "numpy", "item", "tolist", "__bool__", "__float__", "__int__"):
            raise AssertionError(f"{func.__name__} waits for the device")
        return super().__torch_function__(func, types, args, kwargs or {})


def on_device(tensor: Any, index: int | None = None) -> torch.Tensor:
    """A tensor as if it lay on a device."""
    made = torch.as_tensor(tensor).clone().as_subclass(OnDevice)
    if index is not None:
        made._where = torch.device("cpu", index)  # type: ignore[attr-defined]
    return made


class Flight:
    """A copy on its way."""

    def __init__(self, device: FakeCuda, source: torch.Tensor, data: torch.Tensor, flag: torch.Tensor) -> None:
        self._device = device
        self._parts = source.as_subclass(torch.Tensor), data, flag
        self.has_landed = False

    def land(self) -> None:
        """It arrives: first the bytes, then the flag."""
        if not self.has_landed:
            source, data, flag = self._parts
            data.copy_(source)
            flag.fill_(1)
            self.has_landed = True

    def leave(self, source: torch.Tensor) -> None:
        """What it copies is about to be written to."""
        held, *rest = self._parts
        if held.data_ptr() == source.data_ptr():
            self._parts = held.clone(), *rest

    def query(self) -> bool:
        """As the event behind it says; a device that is not told to hang finishes when it is asked."""
        self._device.asked += 1
        if self._device.is_dead:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if not self._device.hangs:
            self.land()
        return self.has_landed


class Moment:
    """When the last copy behind a graph has landed, and those before it."""

    flights: list[Flight]

    def query(self) -> bool:
        landed = [flight.query() for flight in self.flights]  # each of them
        return all(landed)


class FakeCuda(Driver):
    """The device.

    Attributes:
        flights: Every copy that was begun.
        asked: How often the device was asked whether one has arrived.
        pinned_bytes: Pinned memory that was allocated.
        is_beside: Whether what is computed now is so by the stream of the copies.
        uploaded: What was read from by the device after the call that gave it.
        captured: How many graphs were captured.
        replays: How often one was replayed.
        memory_runs_out: Whether there is no memory for another graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flights: list[Flight] = []
        self.asked = 0
        self.pinned_bytes = 0
        self.uploaded: list[torch.Tensor] = []
        self.captured = self.replays = 0
        self.memory_runs_out = False
        self.captures = self.is_dead = self.hangs = self.is_beside = False

    def is_capturing(self) -> bool:
        return self.captures

    def pinned(self, n: int) -> torch.Tensor:
        self.pinned_bytes += n
        return torch.full((n,), 255, dtype=torch.uint8)

    def upload(self, host: torch.Tensor, device: torch.device) -> torch.Tensor:
        del device
        self.uploaded.append(host)
        return on_device(host)

    def is_plain(self, tensor: torch.Tensor) -> bool:
        return isinstance(tensor, OnDevice)

    def empty(self, like: torch.Tensor, device: torch.device) -> torch.Tensor:
        del device
        return on_device(torch.full(like.shape, 77, dtype=like.dtype))

    def capture(self, device: torch.device, work: Callable[[], Packed]) -> tuple[Packed, Callable[[], None]]:
        if self.memory_runs_out:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.captured += 1
        with self.beside(device):
            given = work()
        given.source.fill_(0)  # nothing is computed while it is captured

        def replay() -> None:
            self.replays += 1
            assert self.is_beside
            given.source.copy_(work().source)

        return given, replay

    def moment(self) -> Moment:
        return Moment()

    def ones(self, device: torch.device) -> torch.Tensor:
        del device
        return on_device(torch.ones(8, dtype=torch.uint8))

    def replay(
        self,
        graph: Callable[[], None],
        there: list[tuple[torch.Tensor, torch.Tensor]],
        here: list[tuple[torch.Tensor, torch.Tensor]],
        out: list[tuple[torch.Tensor, torch.Tensor]],
        done: Moment,
    ) -> None:
        if self.is_dead:
            raise RuntimeError("CUDA error: device-side assert triggered")
        (data, source), (flag, _) = out
        for flight in self.flights:
            flight.leave(source)  # the stream has copied what it was told to before
        with torch.no_grad():
            for to, value in there:
                to.copy_(value)
        with self.beside(source.device):
            for to, value in here:
                self.uploaded.append(value)
                to.copy_(value)
            graph()
        self.flights.append(Flight(self, source, data, flag))
        done.flights = self.flights[:]

    @contextmanager
    def beside(self, device: torch.device) -> Iterator[None]:
        del device
        self.is_beside = True
        try:
            yield
        finally:
            self.is_beside = False

    def download(self, source: torch.Tensor, data: torch.Tensor, flag: torch.Tensor) -> Flight:
        if self.is_dead:
            raise RuntimeError("CUDA error: device-side assert triggered")
        self.flights.append(Flight(self, source, data, flag))
        return self.flights[-1]

    def land(self, *numbers: int) -> None:
        """Copies arrive: all of them, or those of these numbers."""
        for number in numbers or range(len(self.flights)):
            self.flights[number].land()


def run_on(device: FakeCuda, folder: Any, **options: Any) -> Run:
    """A run whose device is this one."""
    run = Run(folder, **options)
    run._intake._transfers = Transfers(device)
    return run
