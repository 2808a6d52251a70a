"""The way of a batch to the host: at once, or from a GPU by a copy to pinned memory that no step waits for.

It is kept once the copy has arrived, a step or two later.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.heads.head import Task
from xaicli.recorder import columns
from xaicli.recorder.batch import Batches
from xaicli.recorder.columns import is_remote
from xaicli.recorder.writer import SampleStream
from xaicli.wal.frames import MISSING, Place

if TYPE_CHECKING:
    import torch


Then = Callable[[dict[str, NDArray[Any]]], None]

MOST_PENDING = 64
"""Batches on their way at most; beyond, the oldest is waited for, so that memory is bounded."""


class Event(Protocol):
    """A moment on a device's stream."""

    def query(self) -> bool:
        """Whether it has passed."""

    def synchronize(self) -> None:
        """Wait until it has."""


class _Place(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class _Pending(NamedTuple):
    """A copy on its way, or a batch behind one; `source` is held until the copy has arrived."""

    event: Event | None
    host: torch.Tensor | None
    source: torch.Tensor | None
    places: list[_Place]
    then: Then
    fail: Callable[[Exception], None] = lambda _: None


def _copy_from_cuda(source: torch.Tensor) -> tuple[torch.Tensor, Event]:
    import torch

    host = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
    host.copy_(source, non_blocking=True)
    event = cast(Any, torch.cuda.Event)()
    event.record(torch.cuda.current_stream(source.device))
    return host, event


class Transfers:
    """The batches on their way to the host, in order.

    Attributes:
        pending: Those not arrived yet, or behind one that has not.
    """

    def __init__(self, copy: Callable[[Any], tuple[Any, Event]] = _copy_from_cuda) -> None:
        """
        Args:
            copy: Starts the copy of a flat tensor to the host: (the host's tensor, the event of its arrival).
        """
        self._copy = copy
        self.pending: deque[_Pending] = deque()

    def fetch(
        self,
        tensors: Mapping[str, torch.Tensor],
        then: Then,
        fail: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Start copying tensors of one device and return at once.

        Args:
            tensors: {name: tensor}.
            then: Called with {name: array} from a later `drain`, in the order of the fetches.
            fail: Called instead where the device has failed.
        """
        import torch

        plain = {name: _plain(tensor) for name, tensor in tensors.items()}
        # Widest first, so that each lies aligned in the one buffer.
        order = sorted(plain, key=lambda name: -plain[name].element_size())
        places = [_Place(name, _numpy_dtype(plain[name]), tuple(plain[name].shape)) for name in order]
        source = torch.cat([plain[name].reshape(-1).view(torch.uint8) for name in order])
        host, event = self._copy(source)
        self.pending.append(_Pending(event, host, source, places, then, fail))

    def follow(self, then: Then) -> None:
        """Call `then` after everything fetched before: a batch that is on the host already keeps its place."""
        self.pending.append(_Pending(None, None, None, [], then))

    def drain(self, *, wait: bool = False) -> None:
        """Finish the copies that have arrived.

        Args:
            wait: Wait for all of them.
        """
        while self.pending:
            first = self.pending[0]
            try:
                if first.event is not None and not first.event.query():
                    if not wait and len(self.pending) <= MOST_PENDING:
                        return
                    first.event.synchronize()
                arrays = _unpacked(first)
            except Exception as error:  # a context that died says so at every call
                self.pending.popleft()
                first.fail(error)
                continue
            self.pending.popleft()
            first.then(arrays)

    def drain_within(self, seconds: float) -> None:
        """Finish the copies that arrive in time, and give up the others: a device that hangs is not waited for."""
        deadline = time.monotonic() + seconds
        events = [pending.event for pending in self.pending if pending.event is not None]

        def wait() -> None:
            with contextlib.suppress(Exception):  # told of below, batch by batch
                for event in events:
                    event.synchronize()

        waiting = threading.Thread(target=wait, name="xai-device", daemon=True)
        waiting.start()
        waiting.join(max(0.0, deadline - time.monotonic()))
        if not waiting.is_alive():
            self.drain(wait=True)
        while self.pending:
            first = self.pending.popleft()
            if first.event is None:
                first.then({})
            else:
                first.fail(TimeoutError("it did not finish in time"))


def _unpacked(pending: _Pending) -> dict[str, NDArray[Any]]:
    if pending.host is None:
        return {}
    raw, at = pending.host.numpy(), 0
    arrays = {}
    for name, dtype, shape in pending.places:
        size = dtype.itemsize * int(np.prod(shape))
        arrays[name] = raw[at : at + size].view(dtype).reshape(shape)
        at += size
    return arrays


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor of a type numpy knows."""
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.contiguous()


def _numpy_dtype(tensor: torch.Tensor) -> np.dtype[Any]:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


def derive_on_device(
    scores: torch.Tensor, label: torch.Tensor | None, *, are_logits: bool, with_loss: bool, ignored: int | None = None
) -> dict[str, torch.Tensor]:
    """What `xaicli.wal.derived.derive` computes, by a few kernels where the scores are, without waiting for them.

    Args:
        scores: (N, K) logits or probabilities.
        label: (N,) class indices on any device, or None.
        are_logits: Whether the scores are logits.
        with_loss: Whether the cross entropy is wanted.
        ignored: The label that stands for none.

    Returns:
        {column: (N,)}, the prediction among them.
    """
    import torch

    with torch.no_grad():
        z = scores.detach().float()
        classes = z.shape[1]
        log_p = torch.log_softmax(z, 1) if are_logits else z.log()
        p = log_p.exp() if are_logits else z
        top, order = z.topk(min(2, classes), 1)
        found = {
            words.PREDICTION: order[:, 0].int(),
            words.TOP_PROB: p.gather(1, order[:, :1])[:, 0],
            words.ENTROPY: torch.special.entr(p).sum(1),
        }
        if label is None:
            return found
        y = label.to(z.device, non_blocking=True).long()
        known = (y >= 0) & (y < classes)
        if ignored is not None and 0 <= ignored < classes:
            known = known & (y != ignored)
        at = torch.where(known, y, 0)[:, None]
        at_label = p.gather(1, at)[:, 0]
        second = top[:, 1] if classes > 1 else torch.full_like(top[:, 0], -torch.inf)
        other = torch.where(order[:, 0] == at[:, 0], second, top[:, 0])
        others = p.scatter(1, at, 0.0)
        rest = others.sum(1) if are_logits else 1 - at_label
        of_label = {
            words.LABEL_PROB: at_label,
            words.MARGIN: z.gather(1, at)[:, 0] - other,
            words.EL2N: torch.sqrt((others * others).sum(1) + rest * rest),
        }
        if with_loss:
            of_label[words.LOSS] = -log_p.gather(1, at)[:, 0]
        missing = (
            torch.tensor([int(MISSING.view(np.int32))], dtype=torch.int32)
            .view(torch.float32)
            .to(z.device, non_blocking=True)
        )
        return found | {name: torch.where(known, value, missing) for name, value in of_label.items()}


Given = dict[str, Any]
"""The columns as the caller gave them, `logits`, `probs` and metrics among them; absent ones are left out."""


class Intake:
    """Keeps batches in the order they were given, whatever device they are on."""

    def __init__(
        self,
        batches: Batches,
        samples: SampleStream,
        refuse: Callable[[Exception, int], None],
        lose: Callable[[int, str], None],
        transfers: Transfers | None = None,
    ) -> None:
        """
        Args:
            batches: Checks and completes them.
            samples: Keeps them.
            refuse: Told of a batch that turns out bad after its copy.
            lose: Told of rows whose device failed.
            transfers: Brings them to the host.
        """
        self._batches = batches
        self._samples = samples
        self._refuse = refuse
        self._lose = lose
        self._transfers = transfers or Transfers()

    def add(
        self,
        place: Place,
        step: int,
        sample_id: Any,
        label: Any,
        prediction: Any,
        logits: Any,
        probs: Any,
        metrics: Mapping[str, Any],
        keep: bool,
        tokens: bool = False,
    ) -> None:
        """Keep a batch.

        Raises:
            ValueError: It cannot be stored; the column is named.
        """
        with self._samples.lock:
            if self._transfers.pending:
                self._transfers.drain()
            if self._transfers.pending:
                batch = None
            else:
                batch = self._batches.make(sample_id, label, prediction, logits, probs, metrics, keep, tokens)
            if batch is None:
                named = zip(_NAMED, (sample_id, label, prediction, logits, probs), strict=True)
                given = {**dict(named), **metrics}
                self._fetch(
                    place, step, {name: value for name, value in given.items() if value is not None}, keep, tokens
                )
            elif batch[1]:
                self._samples.append(place, step, *batch)

    def drain(self, seconds: float | None = None) -> None:
        """Wait for every batch on its way; for at most so long, after which those left are dropped and counted."""
        if self._transfers.pending:
            with self._samples.lock:
                if seconds is None:
                    self._transfers.drain(wait=True)
                else:
                    self._transfers.drain_within(seconds)

    def _fetch(self, place: Place, step: int, given: Given, keep: bool, tokens: bool) -> None:
        """Start the copy of what is on a device; hold copies of the rest, which the caller may change."""
        rows = _length(given[words.SAMPLE_ID])
        for name in [name for name, value in given.items() if _length(value) != rows]:
            reason = f"{name} has {_length(given.pop(name))} values for {rows} sample ids"
            self._batches.refuse(name, reason, rows)
        if not keep and self._batches.task in (None, Task.CLASSIFICATION, Task.BINARY):
            given = _derived(given, self._batches.ignored)
        remote = {name: value for name, value in given.items() if is_remote(value)}
        host = {name: _own_copy(value) for name, value in given.items() if name not in remote}

        def arrive(arrays: dict[str, NDArray[Any]]) -> None:
            try:
                found = host | arrays
                ids, label, prediction, logits, probs = (found.pop(name, None) for name in _NAMED)
                batch = self._batches.make(ids, label, prediction, logits, probs, found, keep, tokens)
                if batch is not None and batch[1]:
                    self._samples.append(place, step, *batch)
            except Exception as error:  # it is the batch's fault, not that of the call that finds the copy arrived
                self._refuse(error, rows)

        def fail(error: Exception) -> None:
            self._lose(rows, f"a batch did not come from its device: {error}")

        if remote:
            self._transfers.fetch(remote, arrive, fail)
        else:
            self._transfers.follow(arrive)


_NAMED = (words.SAMPLE_ID, words.LABEL, words.PREDICTION, "logits", "probs")


def _derived(given: Given, ignored: int | None) -> Given:
    """What was given, with what follows from scores on a device in their place."""
    name = "logits" if "logits" in given else "probs"
    scores: Any = given.get(name)
    if not is_remote(scores) or scores.ndim != 2 or scores.shape[1] < 2:
        return given  # what there is to say about it is said on the host
    import torch

    label = given.get(words.LABEL)
    if label is not None and not isinstance(label, torch.Tensor):
        try:
            whole = columns.labels(label, words.LABEL)
        except ValueError:
            return given  # told of where the batch is checked
        if isinstance(whole, list):
            return given  # names are looked up on the host
        label = torch.from_numpy(whole)
    if label is not None and (label.numel() != len(scores) or label.is_floating_point()):
        return given
    found = derive_on_device(
        scores,
        None if label is None else label.reshape(-1),
        are_logits=name == "logits",
        with_loss=words.LOSS not in given,
        ignored=ignored,
    )
    return found | {key: value for key, value in given.items() if key not in ("logits", "probs")}


def _length(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    return 1 if isinstance(value, str) or not hasattr(value, "__len__") else len(value)


def _own_copy(value: Any) -> Any:
    if columns.is_tensor(value):
        value = columns.tensor_to_array(value)
    return np.array(value) if isinstance(value, np.ndarray) else list(value) if isinstance(value, list) else value
