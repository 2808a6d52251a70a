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
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.wal.frames import MISSING, NULL_INT

if TYPE_CHECKING:
    import torch

FIRST_BYTES = 4 << 20
MOST_BYTES = 64 << 20
"""Pinned memory of a run, unless one batch alone is larger; and of the device's what is copied to be looked at."""
MOST_COPIED = 16 << 20
"""Bytes of a batch that is copied on its device to be looked at beside the training; a larger one is where it lies."""
_ALIGNED = 64
_FLAG_BYTES = 8
_NAP = 2e-4
CHUNK = 1 << 22
"""Scores that are looked at together, so that what is allocated on the device is bounded: 16 MB of float32."""
_LEAST = -1e4
"""Below this a float32 `exp` is 0 by far: stands for -inf where a product with 0 must be 0."""


class Event(Protocol):
    """A moment on a device's stream."""

    def query(self) -> bool:
        """Whether it has passed."""


class Driver:
    """What is asked of CUDA; tests have another."""

    def __init__(self) -> None:
        self._streams: dict[Any, tuple[Any, torch.Tensor]] = {}

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

    @contextmanager
    def beside(self, device: torch.device) -> Iterator[Any]:
        """A stream of their own for this block's operations, behind what the current one does so far."""
        import torch

        with torch.cuda.device(device):
            if device not in self._streams:
                self._streams[device] = cast(Any, torch.cuda.Stream)(device), _ones(device)
            side, _ = self._streams[device]
            current = torch.cuda.current_stream(device)
            if current != side:
                side.wait_stream(current)
            with torch.cuda.stream(side):
                yield side

    def download(self, source: torch.Tensor, data: torch.Tensor, flag: torch.Tensor) -> Event:
        """Copy bytes to pinned memory by a stream of their own, behind what the current stream does; then the flag."""
        import torch

        with self.beside(source.device) as side:
            data.copy_(source, non_blocking=True)
            flag.copy_(self._streams[source.device][1], non_blocking=True)
            # The source is held until the flag is there. `record_stream` would be another way, but has a tensor that is
            # freed ask the device for an event: where the context has died, the process ends with that.
            event = cast(Any, torch.cuda.Event)()
            event.record(side)
        return cast(Event, event)


def _ones(device: torch.device) -> torch.Tensor:
    import torch

    return torch.full((_FLAG_BYTES,), 1, dtype=torch.uint8, device=device)


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
        padded = _padded(n)
        self.data = ring.memory[at : at + n]
        self.flag = ring.memory[at + padded : at + padded + _FLAG_BYTES]
        self._flag: NDArray[np.uint8] = self.flag.numpy()
        self._flag[:] = 0

    @property
    def is_full(self) -> bool:
        """Whether what is copied here has arrived; asks nothing of the device."""
        return bool(self._flag.all())

    def give_back(self) -> None:
        """The memory may be used again."""
        self._ring.give_back(self._place)


def _padded(n: int) -> int:
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
        wanted = _padded(n) + _ALIGNED
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


def _packed(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, list[_Place]]:
    """The bytes of contiguous tensors of one device, one behind the other, copied by one kernel; and where each is."""
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
    return torch.cat(pieces), places


def copied_there(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Copies of tensors of one device, made there by one kernel: the memory they share, and {name: copy}."""
    memory, places = _packed({name: _contiguous(tensor.detach()) for name, tensor in tensors.items()})
    copies, at = {}, 0
    for name, dtype, shape, size in places:
        copies[name] = memory[at : at + size].view(dtype).view(shape)
        at += size
    return memory, copies


class Copy:
    """Tensors of one device on their way to the host, one behind the other."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], room: Callable[[int], Slot], driver: Driver) -> None:
        """
        Args:
            tensors: {name: tensor}, all on one device.
            room: Gives pinned memory; may wait for it.
            driver: Starts the copy.
        """
        # A buffer of our own, which nobody writes to while it is read; held until then.
        self._source: torch.Tensor | None
        self._source, self._places = _packed({name: _plain(tensor) for name, tensor in tensors.items()})
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
        raw, at = self._slot.data.numpy(), 0
        arrays = {}
        for name, dtype, shape, size in self._places:
            arrays[name] = raw[at : at + size].view(_numpy_dtype(dtype)).reshape(shape)
            at += size
        return arrays

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


def missing_on(device: torch.device) -> torch.Tensor:
    """What stands for no value, () float32: made of its bits, since a device makes another NaN of one it converts."""
    import torch

    return torch.full((), int(MISSING.view(np.int32)), dtype=torch.int32, device=device).view(torch.float32)


def derive_on_device(
    scores: torch.Tensor, label: torch.Tensor | None, *, are_logits: bool, with_loss: bool, ignored: int | None = None
) -> dict[str, torch.Tensor]:
    """What `xaicli.wal.derived.derive` computes, by a few kernels where the scores are, without waiting for them.

    At most three times `CHUNK` numbers are allocated at a time, beside the (N,) results.

    Args:
        scores: (N, K) logits or probabilities.
        label: (N,) class indices on the scores' device, or None.
        are_logits: Whether the scores are logits.
        with_loss: Whether the cross entropy is wanted.
        ignored: The label that stands for none.

    Returns:
        {column: (N,)}, the prediction among them.
    """
    import torch

    with torch.no_grad():
        scores = scores.detach()
        rows = max(1, CHUNK // scores.shape[1])
        pieces = []
        for at in range(0, max(1, len(scores)), rows):
            y = None if label is None else label[at : at + rows].long()
            pieces.append(_derived_rows(scores[at : at + rows], y, are_logits, with_loss, ignored))
        if len(pieces) == 1:
            return pieces[0]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def derive_sequences_on_device(
    scores: torch.Tensor, label: torch.Tensor, *, are_logits: bool, ignored: int, first: int = 0
) -> dict[str, torch.Tensor]:
    """What `xaicli.wal.derived.sequence` computes, where the scores are: a vocabulary's are too many to be brought.

    Args:
        scores: (N, T, K) logits or probabilities.
        label: (N, T) classes on the scores' device; `ignored` ones, and those outside [0, K), do not count.
        are_logits: Whether the scores are logits.
        ignored: The label of a place that does not count.
        first: What the first place is counted as.

    Returns:
        {metric: (N,) float32}.
    """
    import torch

    with torch.no_grad():
        n, places, classes = scores.shape
        # Of a part of a larger tensor, such as all places but the last, no copy is made.
        pieces = [scores.reshape(n * places, classes)] if scores.is_contiguous() else list(scores)
        labels = label.reshape(len(pieces), -1)
        each = [
            derive_on_device(piece, y, are_logits=are_logits, with_loss=True, ignored=ignored)
            for piece, y in zip(pieces, labels, strict=True)
        ]
        loss, entropy, predicted = (
            torch.cat([one[name] for one in each]).reshape(n, places)
            for name in (words.LOSS, words.ENTROPY, words.PREDICTION)
        )
        known = (label >= 0) & (label < classes) & (label != ignored)
        count, none = known.sum(1), missing_on(scores.device)
        some, of = count > 0, count.clamp(min=1)
        mean = torch.where(known, loss, 0.0).sum(1) / of
        worst = torch.where(known, loss, -torch.inf).max(1)
        right = ((predicted == label) & known).sum(1) / of
        broken = ((predicted == NULL_INT) & known).any(1)  # a place that says nothing predicts nothing
        found = {
            words.LOSS: mean,
            words.LABEL_PROB: (-mean).exp(),
            "token_accuracy": torch.where(broken, torch.nan, right),
            words.ENTROPY: torch.where(known, entropy, 0.0).sum(1) / of,
            "worst_token": (worst.indices + first).float(),
            "worst_token_loss": worst.values,
        }
        return {name: torch.where(some, value, none) for name, value in found.items()} | {"n_tokens": count.float()}


def _derived_rows(
    z: torch.Tensor, y: torch.Tensor | None, are_logits: bool, with_loss: bool, ignored: int | None
) -> dict[str, torch.Tensor]:
    """`derive_on_device` of rows that are looked at together."""
    import torch

    classes = z.shape[1]
    z = z if z.is_floating_point() else z.float()
    # `max` gives the first of equal scores on every device, `topk` any of them; of bf16 scores many are equal.
    largest, first = z.max(1, keepdim=True)
    second = z.scatter(1, first, -torch.inf).amax(1, keepdim=True)
    log_p = torch.log_softmax(z, 1, dtype=torch.float32) if are_logits else z.float().log()
    p = log_p.exp() if are_logits else z.float()
    # What says nothing predicts nothing, as in `xaicli.wal.derived.predictions`: the two largest, of which NaN is one,
    # have no difference.
    silent = (largest - second).isnan() if classes > 1 else largest.isnan()
    if not are_logits and classes > 1:
        silent = silent | (largest == 0)
    found = {words.PREDICTION: torch.where(silent, NULL_INT, first.int())[:, 0]}
    if y is None:
        found[words.TOP_PROB] = p.gather(1, first)[:, 0]
        found[words.ENTROPY] = _entropy(p, log_p)
        return found
    at = y.clamp(0, classes - 1)
    known = at == y
    if ignored is not None and 0 <= ignored < classes:
        known = known & (y != ignored)
    at = at[:, None]
    of_both = p.gather(1, torch.cat((first, at), 1))
    found[words.TOP_PROB] = of_both[:, 0]
    of_label = {words.LABEL_PROB: of_both[:, 1]}
    if with_loss:
        of_label[words.LOSS] = -log_p.gather(1, at)[:, 0]
    of_label[words.MARGIN] = (z.gather(1, at).float() - torch.where(first == at, second, largest).float())[:, 0]
    found[words.ENTROPY] = _entropy(p, log_p)
    # 1 - p_y is the sum of the others, which does not cancel where p_y is near 1.
    others = p.scatter_(1, at, 0.0) if are_logits or p is not z else p.scatter(1, at, 0.0)
    rest = others.sum(1) if are_logits else 1 - of_label[words.LABEL_PROB]
    of_label[words.EL2N] = torch.hypot(torch.linalg.vector_norm(others, dim=1), rest)
    # What stands for no value is told by its bits: a device makes another NaN of one it converts.
    bits = torch.where(known, torch.stack(list(of_label.values())).view(torch.int32), int(MISSING.view(np.int32)))
    return found | dict(zip(of_label, bits.view(torch.float32).unbind(), strict=True))


def _entropy(p: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """(N,) -p log p summed, without another (N, K): where p is 0 the logarithm counts for nothing; changes `log_p`."""
    return log_p.clamp_(min=_LEAST).mul_(p).sum(1).neg_()
