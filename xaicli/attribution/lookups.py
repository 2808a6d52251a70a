"""Where ids are looked up: which places of an input an embedding reads, and answering in its stead."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xaicli.errors import UsageError

_OF_FUNCTION: tuple[str, ...] = ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq")
_OF_FUNCTION += ("mode", "sparse", "per_sample_weights", "include_last_offset", "padding_idx")
"""The arguments of `torch.nn.functional.embedding_bag`."""
_OF_OPERATOR: tuple[str, ...] = ("weight", "input", "offsets", "scale_grad_by_freq", "mode", "sparse")
_OF_OPERATOR += ("per_sample_weights", "include_last_offset", "padding_idx")
"""Those of the operator behind it."""


def name_of(func: Callable[..., Any]) -> str:
    """The plain name of a torch function, method or operator: "add" of `add`, `__iadd__`, `add_` and `add.Tensor`."""
    name = str(getattr(func, "__name__", func)).partition(".")[0]
    if name == "__get__":
        name = str(getattr(getattr(func, "__self__", None), "__name__", name))
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        name = name[1:] if name in ("iadd", "radd", "isub", "rsub", "imul", "rmul") else name
    return name.strip("_")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results, however deep they lie in lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)


@dataclass(frozen=True)
class Lookup:
    """One call of an embedding that looks up places of an input.

    Attributes:
        call: Which of the calls of embeddings.
        places: Which places of a sample, flat, in the order of the call; -1 for ids that are none of the input's.
        lead: How many places come before the axis of samples: 1 where samples are the first axis of the ids, their
            length where they are transposed.
        width: How many numbers each place gets; 0 where that is not known yet.
        start: Where they begin among those that other calls give the same places.
        table: Which table it looks them up in, by the memory of its weights; 0 where that is not known.
        each: Where they differ from sample to sample (the last token that counts), (sample, place); `places` are those
            of the first sample.
    """

    call: int
    places: tuple[int, ...]
    lead: int = 1
    width: int = 0
    start: int = 0
    table: int = 0
    each: Tensor | None = field(default=None, compare=False)

    def by_sample(self, rows: Tensor, n: int) -> Tensor:
        """(sample, place, width) of what the call answers for `n` samples."""
        width = rows.shape[-1]
        if rows.numel() != n * len(self.places) * width:
            raise _of_other_lengths()
        return rows.reshape(self.lead, n, -1, width).movedim(1, 0).reshape(n, len(self.places), width)

    @property
    def read(self) -> frozenset[int]:
        """The places of a sample that it looks up."""
        return frozenset(self.places if self.each is None else self.each.flatten().tolist()) - {-1}

    def by_row(self, n: int) -> Tensor:
        """(sample, place) for `n` samples."""
        return torch.tensor(self.places).expand(n, -1) if self.each is None else self.each

    def of_samples(self, samples: Tensor, padded: Callable[[Tensor], Tensor]) -> Lookup:
        """That of a batch of some samples.

        Args:
            samples: (row,) which.
            padded: Fills the batch up.
        """
        return self if self.each is None else replace(self, each=padded(self.each[samples]))

    def of(self, point: Tensor, others: Callable[[], Tensor]) -> Tensor:
        """What the call is to answer at a point (sample, ..., width): its values in the order of its ids.

        Args:
            point: The values.
            others: What the call answers by itself, for ids that are none of the input's.
        """
        n = len(point)
        part = point.reshape(n, -1, point.shape[-1])[..., self.start : self.start + self.width]
        if self.each is not None:
            at = self.each.unsqueeze(-1)
            found = part.gather(1, at.clamp(min=0).expand(-1, -1, self.width))
            part = torch.where(at < 0, self.by_sample(others(), n), found)
            return part.reshape(n, self.lead, -1, self.width).movedim(0, 1) if self.lead > 1 else part
        rest = self.by_sample(others(), n) if -1 in self.places else part
        # By slices: no list as an index, which a captured CUDA graph would have to copy from the host.
        runs = [part[:, at : at + length] if at >= 0 else rest[:, to : to + length] for to, at, length in self._runs()]
        part = torch.cat(runs, 1) if len(runs) > 1 else runs[0]
        return part.reshape(n, self.lead, -1, self.width).movedim(0, 1) if self.lead > 1 else part

    def _runs(self) -> list[tuple[int, int, int]]:
        """(where in the call, where in the sample or -1, how many) of neighbours that stay neighbours."""
        runs: list[tuple[int, int, int]] = []
        for to, at in enumerate(self.places):
            if runs:
                first, start, length = runs[-1]
                if at == (-1 if start < 0 else start + length):
                    runs[-1] = (first, start, length + 1)
                    continue
            runs.append((to, at, 1))
        return runs


def _of_other_lengths() -> UsageError:
    return UsageError(
        "forward looks up more ids of a sample in one batch than in another",
        hint="does it cut ids, or fill them up, by what stands beside a sample? do that before the model",
    )


Embedded = Mapping[int, Sequence[tuple[Lookup, Tensor]]]
"""{call of an embedding: its look-ups, each with the point (row, ..., width) it answers at}."""


def lookup_of(call: int, positions: Tensor, n: int, per: int, *, table: int = 0) -> Lookup | None:
    """Which places of each sample a call looks up; None where it looks up one sample's ids for another.

    Args:
        call: Which call.
        positions: For each of its ids where it was in the input, flat; -1 for what is none of the input's.
        n: How many samples the input has.
        per: How many places each.
        table: Which table.
    """
    for axis in range(positions.ndim if positions.numel() else 0):
        lead = math.prod(positions.shape[:axis])
        if positions.numel() % (lead * n):
            continue
        rows = positions.reshape(lead, n, -1).movedim(1, 0).reshape(n, -1)
        own = rows >= 0
        if bool(own.any()) and bool(((rows // per == torch.arange(n)[:, None]) | ~own).all()):
            return lookup_at(call, torch.where(own, rows % per, -1), lead, table)
    return None


def lookup_at(call: int, rows: Tensor, lead: int, table: int) -> Lookup:
    """A look-up of the places (sample, place) of each sample, -1 for none of the input's."""
    alike = torch.equal(rows, rows[:1].expand_as(rows))
    return Lookup(call, tuple(rows[0].tolist()), lead, table=table, each=None if alike else rows)


def side_by_side(lookups: Sequence[Lookup], widths: Sequence[int], per: int) -> tuple[tuple[Lookup, ...], int]:
    """The look-ups with their widths, those of the same places one behind the other; and the width of all together."""
    filled = [0] * per
    found = []
    for lookup, width in zip(lookups, widths, strict=True):
        start = max(filled[place] for place in lookup.read)
        for place in lookup.read:
            filled[place] = start + width
        found.append(replace(lookup, width=width, start=start))
    return tuple(found), max(filled)


EMBEDDINGS = frozenset(("embedding",))


class Embeddings(TorchFunctionMode):
    """Some calls of an embedding answer with what is given in their place.

    Args:
        given: {call: the look-ups of that call, each with the point it answers at}.
    """

    def __init__(self, given: Embedded) -> None:
        super().__init__()
        self._given, self._calls = given, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if name_of(func) in EMBEDDINGS:
            self._calls += 1
            given = self._given.get(self._calls - 1)
            if given is not None:
                tensors = list(tensors_in((args, kwargs or {})))
                weight = next(t for t in tensors if t.is_floating_point())
                ids = next(t for t in tensors if not t.is_floating_point())
                rows: Callable[[], Tensor] = partial(func, *args, **(kwargs or {}))
                for lookup, point in given:
                    found = lookup.of(point.to(weight.dtype), rows)
                    if found.shape[:-1].numel() != ids.numel():
                        raise _of_other_lengths()
                    rows = partial(found.reshape, *ids.shape, found.shape[-1])
                return rows()
        return func(*args, **(kwargs or {}))


class LookingUp(nn.Module):
    """A model whose other ways to look up ids are embeddings, too: bags of them (`nn.EmbeddingBag`), and `table[ids]`.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the model returns."""
        with _AsEmbeddings(self.model):
            return self.model(*inputs, **named)


class _AsEmbeddings(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        weights = [t for t in (*model.parameters(), *model.buffers()) if t.ndim == 2 and t.is_floating_point()]
        self._tables = {t.untyped_storage().data_ptr() for t in weights}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name == "embedding_bag":
            found = _bags(args, kwargs)
            if found is not None:
                # The operator below the function returns what its own gradient needs besides.
                return (found, None, None, None) if args[0].is_floating_point() else found
        elif name in ("getitem", "index", "index_select") and self._is_table(args):
            ids = args[1] if name != "index_select" else args[2] if len(args) > 2 and args[1] == 0 else None
            ids = ids[0] if isinstance(ids, list | tuple) and len(ids) == 1 else ids
            if isinstance(ids, Tensor) and ids.dtype in (torch.int64, torch.int32):
                ids = ids if not bool((ids < 0).any()) else ids % len(args[0])
                return functional.embedding(ids, args[0])
        return func(*args, **kwargs)

    def _is_table(self, args: Any) -> bool:
        given = args[0] if args else None
        return (
            isinstance(given, Tensor)
            and given.ndim == 2
            and given.is_floating_point()
            and given.untyped_storage().data_ptr() in self._tables
        )


def _bags(args: Any, kwargs: Any) -> Tensor | None:
    """What `embedding_bag` gives for rows of ids of one length, by an embedding; None for bags of other lengths."""
    names = _OF_OPERATOR if args[0].is_floating_point() else _OF_FUNCTION
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
    ids, weight, offsets, padding = given["input"], given["weight"], given.get("offsets"), given.get("padding_idx")
    if ids.ndim == 1:
        starts: list[int] = offsets.tolist() if offsets is not None else []
        if given.get("include_last_offset") and starts and starts.pop() != len(ids):
            return None
        length = len(ids) // len(starts) if starts else 0
        if not length or starts != list(range(0, len(ids), length)):
            return None
        ids = ids.view(-1, length)
    # What max_norm changes is the table, before anything is read.
    rows = functional.embedding(ids, weight, max_norm=given.get("max_norm"), norm_type=given.get("norm_type", 2.0))
    if (scales := given.get("per_sample_weights")) is not None:
        rows = rows * scales.view(ids.shape).unsqueeze(-1)
    counts = torch.ones_like(ids, dtype=torch.bool) if padding in (None, -1) else ids != padding % len(weight)
    kept = counts.unsqueeze(-1)
    match {0: "sum", 1: "mean", 2: "max"}.get(given.get("mode", "mean"), given.get("mode", "mean")):
        case "max":
            found = rows.masked_fill(~kept, -torch.inf).amax(1)
            return found.masked_fill(~kept.any(1), 0.0)
        case "sum":
            return (rows * kept).sum(1)
        case _:
            return (rows * kept).sum(1) / kept.sum(1).clamp(min=1)


class KeptCalls(TorchFunctionMode):
    """Keeps what some calls of some functions answer, so that it can be read, or differentiated by.

    Args:
        names: The functions, as `name_of` names them.
        calls: Which of their calls, counted together; None for all.

    Attributes:
        found: {call: its answer}.
    """

    def __init__(self, names: Collection[str], calls: Iterable[int] | None = None) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        self._names, self._wanted, self._calls = names, None if calls is None else frozenset(calls), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if name_of(func) in self._names:
            self._calls += 1
            if self._wanted is None or self._calls - 1 in self._wanted:
                self.found[self._calls - 1] = result
                return result.clone()  # What is kept must not meet an in-place operation.
        return result


class Replayed(TorchFunctionMode):
    """Embeddings answer as they did in another pass, whatever they are asked.

    Args:
        answers: {call: what it answered}.
    """

    def __init__(self, answers: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._answers, self._calls = answers, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if name_of(func) in EMBEDDINGS:
            self._calls += 1
            return self._answers[self._calls - 1].clone()
        return func(*args, **(kwargs or {}))


class LookedUp(TorchFunctionMode):
    """Keeps the ids that some calls of embeddings look up.

    Args:
        calls: Which calls.
        answers: {another call: what it answers, whatever it is asked}.

    Attributes:
        found: {call: its ids, on the CPU}.
    """

    def __init__(self, calls: Iterable[int], answers: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        self._wanted, self._answers, self._calls = frozenset(calls), answers, 0

    @property
    def complete(self) -> bool:
        """Whether all of the calls were seen."""
        return len(self.found) == len(self._wanted)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if name_of(func) in EMBEDDINGS:
            if self._calls in self._wanted:
                ids = next(t for t in tensors_in((args, kwargs or {})) if not t.is_floating_point())
                self.found[self._calls] = ids.detach().to("cpu", copy=True)
                if self.complete:
                    raise SeenEnoughError
            self._calls += 1
            if (answer := self._answers.get(self._calls - 1)) is not None:
                return answer.clone()
        return func(*args, **(kwargs or {}))


class SeenEnoughError(Exception):
    """What is asked of a pass is known: it need not go on."""
