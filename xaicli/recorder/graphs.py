"""Batches of one shape on a CUDA device: what follows from their scores is captured once, and replayed from then on.

Launching some forty small kernels costs a step more than what they compute; a captured graph is launched as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xaicli.recorder.device import FLAG_BYTES, Driver, packed, padded, views

if TYPE_CHECKING:
    import torch

Work = Callable[[dict[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]

FROM_BATCH = 3
"""The batch of a shape that is captured: those before have loaded the kernels, and a shape may come once."""
MOST_GRAPHS = 8
"""Shapes that are captured of a run: those of training and evaluation, their last batches, and some more."""
MOST_BYTES = 4 << 20
"""Of a batch on its device: what a larger one has it do outweighs its launches, and the memory is kept."""
MOST_PINNED = 8 << 20
"""Pinned memory of a graph."""
_PLACES_MADE = 8
_FULL = int.from_bytes(bytes([1] * FLAG_BYTES), "little")


class Landing:
    """Pinned memory for one batch of a graph: what is copied to the device, and what comes back.

    Attributes:
        inputs: {name: (n,) pinned tensor}.
        out: The bytes that come, and the flag behind them.
    """

    def __init__(self, memory: torch.Tensor, hosts: Mapping[str, torch.Tensor], graph: _Graph, driver: Driver) -> None:
        """
        Args:
            memory: All of it.
            hosts: {name: tensor} like those that are copied from here.
            graph: Whose it is.
            driver: Knows whether a graph is being captured.
        """
        self.inputs, at = {}, 0
        for name, like in hosts.items():
            self.inputs[name] = memory[at : at + like.nbytes].view(like.dtype).view(like.shape)
            at += padded(like.nbytes)
        size = len(graph.found.source)
        flag = memory[at + padded(size) : at + padded(size) + FLAG_BYTES]
        self.out = [memory[at : at + size], flag]
        self._numbers = {name: tensor.numpy() for name, tensor in self.inputs.items()}
        self._arrays = views(self.out[0].numpy(), graph.found.places)
        self._flag = flag.numpy().view(np.uint64)
        self._graph, self._driver = graph, driver

    def fill(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Hold a batch's values, and wait for its copy."""
        for name, value in values.items():
            self._numbers[name][:] = value
        self._flag[0] = 0

    @property
    def has_arrived(self) -> bool:
        """Whether the batch has; asks nothing of the device."""
        return bool(self._flag[0] == _FULL)

    def ask(self) -> bool:
        """Whether it has arrived, as the device says of this batch or a later one.

        Raises:
            RuntimeError: The device has failed.
        """
        return self.has_arrived or (not self._driver.is_capturing() and self._graph.done.query())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What arrived: views of memory that is used again after `let_go`."""
        return dict(self._arrays)

    def let_go(self) -> None:
        """Give back the memory."""
        self._graph.free.append(self)


class _Graph:
    """A captured graph.

    Attributes:
        found: What it gives.
        done: The moment when that was copied the last time.
        free: The pinned memory that no batch is in.
    """

    def __init__(self, like: Mapping[str, torch.Tensor], device: torch.device, work: Work, driver: Driver) -> None:
        """
        Args:
            like: {name: tensor} like its inputs.
            device: Where it is.
            work: From its inputs to what is fetched. Reads no values.
            driver: Captures and replays.
        """
        self._driver = driver
        self._inputs = {name: driver.empty(tensor, device) for name, tensor in like.items()}
        self._hosts = {name: tensor for name, tensor in like.items() if tensor.is_cpu}
        self.found, self._launch = driver.capture(device, lambda: packed(work(dict(self._inputs))))
        self.done, self._ones = driver.moment(), driver.ones(device)
        self._size = sum(padded(one.nbytes) for one in self._hosts.values()) + padded(len(self.found.source)) + 64
        self._left = MOST_PINNED // self._size
        self.free: list[Landing] = []

    def send(self, there: Mapping[str, torch.Tensor], here: Mapping[str, NDArray[Any]]) -> Landing | None:
        """Start a batch: where it lands, or None where too many are on their way."""
        if not self.free:
            n = min(self._left, _PLACES_MADE)
            if not n:
                return None
            self._left -= n
            memory = self._driver.pinned(n * self._size).view(n, self._size)
            self.free += [Landing(each, self._hosts, self, self._driver) for each in memory]
        landing = self.free.pop()
        landing.fill(here)
        self._driver.replay(
            self._launch,
            [(self._inputs[name], value) for name, value in there.items()],
            [(self._inputs[name], value) for name, value in landing.inputs.items()],
            list(zip(landing.out, (self.found.source, self._ones), strict=True)),
            self.done,
        )
        return landing


class Graphs:
    """The captured graphs of a run. One stream replays them, so that they use the same memory in turn."""

    def __init__(self, driver: Driver) -> None:
        """
        Args:
            driver: Captures and replays.
        """
        self._driver = driver
        self._graphs: dict[Any, _Graph] = {}
        self._seen: Counter[Any] = Counter()
        self._is_off = False

    def send(
        self, how: Any, there: Mapping[str, torch.Tensor], here: Mapping[str, NDArray[Any]], work: Work
    ) -> Landing | None:
        """Start what batches of one shape have the device do, and the copy of what that gives, by one launch.

        Args:
            how: What `work` does, as far as the values do not say so.
            there: {name: tensor} on devices; may be overwritten by the stream they are of when this returns.
            here: {name: (n,) numbers} that are copied there.
            work: From {name: tensor on the device} to what is fetched. Reads no values.

        Returns:
            Where it lands; None where nothing was started, since there is no graph for it.
        """
        devices = {tensor.device for tensor in there.values()}
        if len(devices) > 1 or not all(map(self._driver.is_plain, there.values())):
            return None
        shapes = [(name, tensor.dtype, tensor.shape) for name, tensor in there.items()]
        key = (how, *devices, *shapes, *((name, array.dtype, array.shape) for name, array in here.items()))
        graph = self._graphs.get(key) or self._captured(key, there, here, work)
        return None if graph is None else graph.send(there, here)

    def _captured(
        self, key: Any, there: Mapping[str, torch.Tensor], here: Mapping[str, NDArray[Any]], work: Work
    ) -> _Graph | None:
        """A new graph, where such a batch has come often enough and there is room for one."""
        if self._is_off or len(self._graphs) >= MOST_GRAPHS:
            return None
        if sum(tensor.nbytes for tensor in there.values()) > MOST_BYTES:
            return None
        self._seen[key] += 1
        if self._seen[key] < FROM_BATCH:
            return None
        import torch

        like = {**there, **{name: torch.from_numpy(array) for name, array in here.items()}}
        device = next(iter(there.values())).device
        try:
            with torch.inference_mode(False), torch.no_grad():
                self._graphs[key] = _Graph(like, device, work, self._driver)
        except Exception:  # no memory for it, or a driver that captures nothing: each batch is launched by itself
            self._is_off = True
        return self._graphs.get(key)
