"""The way of a batch to the host: at once, or from a GPU by a copy to pinned memory that no step waits for.

It is kept once the copy has arrived, a step or two later.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.heads.head import Task
from xaicli.recorder import columns, device
from xaicli.recorder.batch import Batches, is_list_on_device
from xaicli.recorder.columns import is_remote
from xaicli.recorder.device import Copy, Driver, Pinned, Slot, packed
from xaicli.recorder.graphs import Graphs, Landing, Work
from xaicli.recorder.scores import derive_on_device, derive_sequences_on_device
from xaicli.recorder.writer import SampleStream
from xaicli.tables.containers import is_tensor, read
from xaicli.wal.frames import Place

if TYPE_CHECKING:
    import torch


Then = Callable[[dict[str, NDArray[Any]]], None]

MOST_PENDING = 256
"""Batches on their way at most, those behind one that are on the host already included: they are held in memory."""
ROOM_SECONDS = 1.0
"""How long a step waits at most for room behind a device that is slow."""
_LATE = "the device did not finish in time"
_ARRAY = np.ndarray
_MOST_STEPS = 2**31
_CAPTURED = (
    "log_samples and log inside the capture of a CUDA graph record nothing: values are computed when the graph is "
    "replayed; call them after graph.replay(), with the tensors it wrote"
)


class _Pending(NamedTuple):
    """Copies on their way, or a batch behind some; `slots` are given back with them, and `held` is read until then."""

    copies: list[Copy] | list[Landing]
    slots: list[Slot]
    held: list[torch.Tensor]
    then: Then
    fail: Callable[[Exception], None]


class Transfers:
    """The batches on their way to the host, in order.

    Attributes:
        pending: Those not arrived yet, or behind one that has not.
    """

    def __init__(self, driver: Driver | None = None) -> None:
        """
        Args:
            driver: What is asked of CUDA.
        """
        self._driver = driver or Driver()
        self._pinned = Pinned(self._driver)
        self._graphs = Graphs(self._driver)
        self._slots: list[Slot] = []
        """The slots of uploads for the batch that is being made."""
        self._held: list[torch.Tensor] = []
        """The copies on the device of the batch that is being made."""
        self.pending: deque[_Pending] = deque()
        self._abandoned: list[_Pending] = []

    @property
    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured."""
        return self._driver.is_capturing()

    def upload(self, host: NDArray[Any], to: torch.device) -> torch.Tensor:
        """An array on a device, for the batch that is fetched next; the array may be changed when this returns."""
        import torch

        slot = self._room(host.nbytes)
        self._slots.append(slot)
        pinned = slot.data.view(torch.from_numpy(host[:0]).dtype)
        pinned.numpy()[:] = host.reshape(-1)
        return self._driver.upload(pinned, to).reshape(host.shape)

    def replay(
        self,
        how: Any,
        values: Mapping[str, torch.Tensor],
        on_host: Mapping[str, NDArray[Any]],
        work: Work,
        then: Then,
        fail: Callable[[Exception], None],
    ) -> bool:
        """Start what batches of one shape have the device do, and the copy of what it gives, by one launch.

        Args:
            how: What `work` does, as far as the values do not say so.
            values: {name: tensor} on a device.
            on_host: {name: (n,) numbers} that are copied there.
            work: From {name: tensor on the device} to what is fetched.
            then: As for `fetch`.
            fail: As for `fetch`.

        Returns:
            False where nothing was started, since there is no such graph.
        """
        landing = self._graphs.send(how, values, on_host, work)
        if landing is None:
            return False
        self._follow([landing], then, fail)
        return True

    @contextmanager
    def aside(self, tensors: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """Copies of tensors, with which this block works beside the training; the batch is fetched in it.

        So a step pays for one kernel. Tensors of several devices, many bytes, and those of a device that has much to
        copy already, are given as they are, and worked with in between what the step computes.
        """
        devices = {tensor.device for tensor in tensors.values()}
        size = sum(tensor.nbytes for tensor in tensors.values())
        waiting = sum(held.nbytes for one in self.pending for held in one.held)
        if len(devices) != 1 or size > device.MOST_COPIED or waiting + size > device.MOST_BYTES:
            yield tensors
            return
        memory, copies = device.copied_there(tensors)
        try:
            with self._driver.beside(memory.device):
                self._held = [memory]
                yield copies
        finally:
            self._held = []

    def fetch(
        self,
        tensors: Mapping[str, torch.Tensor],
        then: Then,
        fail: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Start copying tensors and return at once.

        Args:
            tensors: {name: tensor}, of one device or several.
            then: Called with {name: array} from a later `drain`, in the order of the fetches; the arrays are views of
                memory that is used again.
            fail: Called instead where the device has failed.
        """
        by_device: dict[Any, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            by_device.setdefault(tensor.device, {})[name] = tensor
        copies: list[Copy] = []
        try:
            for named in by_device.values():
                copies.append(Copy(packed(named), self._room, self._driver))
        except Exception:
            if copies:  # those of other devices are on their way, and their memory is in use
                self._follow(copies, lambda _: None, lambda _: None)
            raise
        self._follow(copies, then, fail)

    def follow(self, then: Then) -> None:
        """Call `then` after everything fetched before: a batch that is on the host already keeps its place."""
        self.pending.append(_Pending([], [], [], then, lambda _: None))

    def _follow(self, copies: list[Copy] | list[Landing], then: Then, fail: Callable[[Exception], None]) -> None:
        slots, self._slots = self._slots, []
        self.pending.append(_Pending(copies, slots, self._held, then, fail))

    def drain(self, *, seconds: float = 0.0) -> None:
        """Finish the copies that have arrived, asking nothing of the device; give up those that failed.

        Args:
            seconds: How long to wait for the others; beyond, they are given up too.
        """
        begun = time.monotonic()
        while self.pending:
            error = None
            if not self._has_arrived(self.pending[0]):
                if not seconds and len(self.pending) <= MOST_PENDING:
                    return
                error = self._wait(self.pending[0], begun + seconds if seconds else None)
            self._finish(error)

    def _has_arrived(self, pending: _Pending) -> bool:
        return all(copy.has_arrived for copy in pending.copies)

    def _wait(self, pending: _Pending, deadline: float | None) -> Exception | None:
        """Wait for copies, without keeping a core busy: None, or why they do not come."""
        begun = time.monotonic()
        while True:
            try:
                if all(copy.ask() for copy in pending.copies):
                    return None
            except Exception as error:  # a context that died says so at every call
                return error
            if deadline is not None and time.monotonic() >= deadline:
                return TimeoutError(_LATE)
            device.nap(begun)

    def _finish(self, error: Exception | None) -> None:
        """Hand on the first batch, or say why it does not come."""
        first = self.pending.popleft()
        if error is None:
            first.then({name: array for copy in first.copies for name, array in copy.arrays().items()})
        else:
            first.fail(error)
        if isinstance(error, TimeoutError):
            self._abandoned.append(first)  # it may still arrive, and must not in memory that is used again
            return
        for slot in first.slots:
            slot.give_back()
        for copy in first.copies:
            copy.let_go()

    def _room(self, n: int) -> Slot:
        """Pinned memory, waited for until the oldest copies have arrived.

        Raises:
            TimeoutError: They do not come.
        """
        deadline = time.monotonic() + ROOM_SECONDS
        while (slot := self._pinned.take(n, is_alone=not self.pending)) is None:
            if not self.pending:
                raise TimeoutError("the batch is too large to be brought from its device")
            error = self._wait(self.pending[0], deadline)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{_LATE}: {len(self.pending)} batches before this one are on their way")
            self._finish(error)
        return slot


Given = dict[str, Any]
"""The columns as the caller gave them, `logits`, `probs` and metrics among them; absent ones are left out."""


class _Scored(NamedTuple):
    """Scores of (N, K) on a device by their name, and their label: on a device, or (N,) here."""

    name: str
    scores: torch.Tensor
    label: torch.Tensor | NDArray[Any] | None


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

    def add_usual(
        self, place: Place, step: int | None, sample_id: Any, label: Any, prediction: Any, metrics: Mapping[str, Any]
    ) -> bool:
        """Keep a batch like the one before at once, as `add` would; False where something about it is unusual.

        One function with few calls, since most of what a step pays for is code that its training has driven out of the
        caches.

        Args:
            place: What its rows belong to, which was checked.
            step: Their step; `add` takes one that is no plain number.
            sample_id: (N,) as of the run's kind.
            label: (N,) or None.
            prediction: (N,) or None.
            metrics: (N,) each.
        """
        usual = self._batches.usual
        if (
            usual is None
            or type(sample_id) is not _ARRAY
            or (label is None, prediction is None, *metrics) != usual.call
        ):
            return False
        given = [sample_id]
        if label is not None:
            given.append(label)
        if prediction is not None:
            given.append(prediction)
        given += metrics.values()
        rows = sample_id.size
        for value, dtype in zip(given, usual.dtypes, strict=True):
            if type(value) is not _ARRAY or value.dtype is not dtype or value.ndim != 1 or value.size != rows:
                return False
        if type(step) is not int or not 0 <= step < _MOST_STEPS or not rows:
            return False
        samples = self._samples
        with samples.lock:
            if self._transfers.pending:
                return False
            samples.append(place, step, usual.plan, rows, given)
        return True

    def drain(self, seconds: float = 0.0) -> None:
        """Keep what has arrived; wait for the others for so long, after which they are dropped and counted."""
        if self._transfers.pending:
            with self._samples.lock:
                self._transfers.drain(seconds=seconds)

    def tell_last(self) -> None:
        """Say what is known only when no further batch comes."""
        self._batches.tell_of_names_without_metrics()

    def bring(self, values: Any, then: Callable[[Any], None], fail: Callable[[Exception], None]) -> None:
        """Call `then` with values whose tensors are on the host: at once, or when they have arrived.

        Args:
            values: Tensors and all else, in lists, tuples and mappings.
            then: Takes the values, with arrays in place of the tensors that were on a device.
            fail: Told why they do not come, or why `then` raised when they had.
        """
        if not _has_remote(values):
            then(values)
            return
        remote: dict[str, torch.Tensor] = {}
        here = _without_remote(values, remote)

        def arrive(arrays: dict[str, NDArray[Any]]) -> None:
            try:
                then(_with_arrays(here, {name: array.copy() for name, array in arrays.items()}))
            except Exception as error:
                fail(error)

        with self._samples.lock:
            self._transfers.drain()
            if self._transfers.is_capturing:
                raise ValueError(_CAPTURED)
            self._transfers.fetch(remote, arrive, fail)

    def _fetch(self, place: Place, step: int, given: Given, keep: bool, tokens: bool) -> None:
        """Start the copy of what is on a device; hold copies of the rest, which the caller may change."""
        given = {name: _gathered(value) for name, value in given.items()}
        if any(map(is_remote, given.values())) and self._transfers.is_capturing:
            raise ValueError(_CAPTURED)
        rows = _length(given[words.SAMPLE_ID])
        for name in [name for name, value in given.items() if _length(value) != rows]:
            reason = f"{name} has {_length(given.pop(name))} values for {rows} sample ids"
            self._batches.refuse(name, reason, rows)
        # What lies on the host is the caller's, who may write to it as soon as this returns, pinned or not.
        given = {name: value if is_remote(value) else _own_copy(value) for name, value in given.items()}
        scores = given.get("logits", given.get("probs"))
        there = {name: value for name, value in given.items() if is_remote(value)}
        scored = None if keep else self._scored(given)
        if scored is not None and self._replay(place, step, given, scored, rows, tokens):
            return
        # Where nothing is worked out, the copy that is fetched is the only one.
        with self._transfers.aside({} if keep or not is_remote(scores) else there) as copies:
            self._send(place, step, given | copies, scored, rows, keep, tokens)

    def _replay(self, place: Place, step: int, given: Given, scored: _Scored, rows: int, tokens: bool) -> bool:
        """Send a batch through the captured graph of those like it; False where there is none."""
        name, scores, label = scored
        values = {key: value for key, value in given.items() if is_remote(value) and key not in _SCORES}
        values[name] = scores
        on_host = {words.LABEL: label} if isinstance(label, np.ndarray) else {}
        with_loss, ignored = words.LOSS not in given, self._batches.ignored

        def work(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            there = _Scored(name, inputs[name], inputs.get(words.LABEL))
            return self._derived({key: inputs[key] for key in values}, there, with_loss=with_loss)

        host = {key: value for key, value in given.items() if key not in (*values, *_SCORES)}
        then, fail = self._ends(place, step, host, rows, tokens=tokens, classes=scores.shape[1])
        return self._transfers.replay((name, with_loss, ignored), values, on_host, work, then, fail)

    def _send(
        self, place: Place, step: int, given: Given, scored: _Scored | None, rows: int, keep: bool, tokens: bool
    ) -> None:
        """Work out what follows from scores on a device, and start the copy of what is there."""
        classes = vocabulary = 0
        if scored is not None:
            classes = scored.scores.shape[1]
            label = scored.label if isinstance(scored.label, np.ndarray) else given.get(words.LABEL)
            here = _Scored(scored.name, given[scored.name], label)  # the copies that were made of both
            given = self._derived(given, here, with_loss=words.LOSS not in given)
        if not (keep or tokens) and self._batches.task in (None, Task.SEQUENCE):
            given, vocabulary = self._derived_sequences(given)
        remote = {name: value for name, value in given.items() if is_remote(value)}
        host = {name: value for name, value in given.items() if name not in remote}
        then, fail = self._ends(
            place, step, host, rows, keep=keep, tokens=tokens, classes=classes, vocabulary=vocabulary
        )
        if remote:
            self._transfers.fetch(remote, then, fail)
        else:
            self._transfers.follow(then)

    def _ends(
        self,
        place: Place,
        step: int,
        host: Given,
        rows: int,
        *,
        keep: bool = False,
        tokens: bool = False,
        classes: int = 0,
        vocabulary: int = 0,
    ) -> tuple[Then, Callable[[Exception], None]]:
        """What is done with a batch when its copy has arrived, and what when it does not come.

        Args:
            place: What its rows belong to.
            step: Their step.
            host: The columns that are here.
            rows: How many there are.
            keep: Whether its scores are kept.
            tokens: Whether the losses of a sequence's tokens are.
            classes: How many there are, where what follows from the scores comes in their place; 0 otherwise.
            vocabulary: The same of a sequence's scores.
        """

        def arrive(arrays: dict[str, NDArray[Any]]) -> None:
            try:
                found = host | arrays
                ids, label, prediction, logits, probs = (found.pop(name, None) for name in _NAMED)
                if vocabulary:
                    self._batches.tell_strange(label, vocabulary)
                    label = None
                if classes and label is not None:
                    label = self._known_label(classes, label)
                batch = self._batches.make(ids, label, prediction, logits, probs, found, keep, tokens)
                if batch is not None and batch[1]:
                    self._samples.append(place, step, *batch)
            except Exception as error:  # it is the batch's fault, not that of the call that finds the copy arrived
                self._refuse(error, rows)

        def fail(error: Exception) -> None:
            self._lose(rows, f"a batch did not come from its device: {error}")

        return arrive, fail

    def _known_label(self, classes: int, label: Any) -> Any:
        """A label of which classes' metrics followed: those that are missing masked."""
        given = columns.labels(label, words.LABEL)
        known = self._batches.known_to(classes, given)
        # Masking none would have the batch checked the long way, every step.
        return given if known is given else _masked(known)

    def _scored(self, given: Given) -> _Scored | None:
        """The scores on a device of which classes' metrics follow, if any."""
        if self._batches.task not in (None, Task.CLASSIFICATION, Task.BINARY):
            return None
        name = "logits" if "logits" in given else "probs"
        scores: Any = given.get(name)
        if not is_remote(scores) or scores.ndim != 2 or scores.shape[1] < 2:
            return None  # what there is to say about it is said on the host
        label = given.get(words.LABEL)
        if label is not None and not is_remote(label):
            try:
                label = columns.labels(label, words.LABEL)
            except ValueError:
                return None  # told of where the batch is checked
            if isinstance(label, list) or label.shape != (len(scores),):
                return None  # names are looked up on the host
            label = np.ascontiguousarray(label)
        elif label is not None and (label.numel() != len(scores) or label.is_floating_point()):
            return None
        return _Scored(name, scores, label)

    def _derived(self, given: Given, scored: _Scored, *, with_loss: bool) -> Given:
        """What was given, with what follows from scores on a device in their place."""
        name, scores, label = scored
        if isinstance(label, np.ndarray):
            label = self._transfers.upload(label, scores.device)
        elif label is not None:
            label = label.detach().reshape(-1).to(scores.device, non_blocking=True)
        found = derive_on_device(
            scores,
            label,
            are_logits=name == "logits",
            with_loss=with_loss,
            ignored=self._batches.ignored,
        )
        return found | {key: value for key, value in given.items() if key not in _SCORES}

    def _derived_sequences(self, given: Given) -> tuple[Given, int]:
        """What was given, with what follows from a sequence's scores on a device in their place; how many classes."""
        name = "logits" if "logits" in given else "probs"
        scores: Any = given.get(name)
        label: Any = given.get(words.LABEL)
        if not is_remote(scores) or scores.ndim != 3 or not hasattr(label, "shape"):
            return given, 0
        if tuple(label.shape) != tuple(scores.shape[:2]) or "float" in str(label.dtype):
            return given, 0  # told of where the batch is checked
        if is_remote(label):
            there = label.detach().to(scores.device, non_blocking=True)
        else:
            there = self._transfers.upload(np.ascontiguousarray(label), scores.device)
        self._batches.settle(Task.SEQUENCE)
        found = derive_sequences_on_device(
            scores, there.long(), are_logits=name == "logits", ignored=self._batches.ignored_token
        )
        kept = {key: value for key, value in given.items() if key not in _SCORES}
        return found | kept, scores.shape[2]


_SCORES = ("logits", "probs")
_NAMED = (words.SAMPLE_ID, words.LABEL, words.PREDICTION, *_SCORES)


def _gathered(value: Any) -> Any:
    """A list of single numbers that lie on a device, as one tensor there."""
    if not is_list_on_device(value):
        return value
    import torch

    on_device = value[0]
    if not all(is_tensor(one) and one.numel() == 1 for one in value):
        return value  # told of where the batch is checked
    return torch.stack([one.detach().reshape(()).to(on_device, non_blocking=True) for one in value])


def _masked(label: columns.Column) -> Any:
    """Labels with those that are missing, which are told of, masked."""
    return label if isinstance(label, list) else np.ma.masked_equal(label, columns.NULL_LABEL)


class _Brought(NamedTuple):
    """Where a tensor stood that is being brought to the host."""

    name: str


def _has_remote(values: Any) -> bool:
    if isinstance(values, Mapping):
        return any(map(_has_remote, values.values()))
    # Of a long list, the first says it.
    return any(map(_has_remote, values[:8])) if isinstance(values, list | tuple) else is_remote(values)


def _without_remote(values: Any, remote: dict[str, torch.Tensor]) -> Any:
    """Values with the tensors on a device taken out of them, into `remote`; of those here copies."""
    if is_remote(values):
        name = str(len(remote))
        remote[name] = values
        return _Brought(name)
    if isinstance(values, Mapping):
        return {key: _without_remote(value, remote) for key, value in values.items()}
    if isinstance(values, list | tuple) and not isinstance(values, _Brought):
        return [_without_remote(value, remote) for value in values]
    return _own_copy(values)


def _with_arrays(values: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Values with the arrays in their places."""
    if isinstance(values, _Brought):
        return arrays[values.name]
    if isinstance(values, dict):
        return {key: _with_arrays(value, arrays) for key, value in values.items()}
    return [_with_arrays(value, arrays) for value in values] if isinstance(values, list) else values


def _length(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    return 1 if isinstance(value, str) or not hasattr(value, "__len__") else len(value)


def _own_copy(value: Any) -> Any:
    value = read(value)
    return np.array(value) if isinstance(value, np.ndarray) else list(value) if isinstance(value, list) else value


def copied(value: Any) -> Any:
    """A value as it is now, whatever its owner writes to it later; what cannot be copied is itself."""
    try:
        if is_remote(value):
            return value.detach().clone()
        if isinstance(value, Mapping):
            return {key: copied(one) for key, one in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(copied, value))
        if hasattr(value, "to_numpy") and hasattr(value, "copy"):
            return value.copy()
        return _own_copy(value)
    except Exception:  # told of where it is checked
        return value
