"""What speaks against a collator keeping its samples' order where nothing stands in samples and batch alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

LENGTHS = (
    "the rows of the collator's batches stand in the order of their lengths, and its samples do not, so that whose row "
    "is whose is not known: let the collator return the ids as well, or say XaiCallback(..., keeps_order=True)"
)
KINDS = (
    "a batch of the collator has as many of each label as its samples have of each of their values, in another order, "
    "so that whose row is whose is not known: let the collator return the ids as well, or say XaiCallback(..., "
    "keeps_order=True)"
)
_NAMED = ("length", "lens")
_LEAST = 3
"""So many different lengths there must be to say something."""
_MOST = 8
"""So many parts of a sample are looked at."""
_ALIKE = 0.9
"""The rank correlation from which on samples count as being in the order of these lengths themselves."""


def hints(samples: Sequence[Any], batch: Any) -> dict[str, bool | None]:
    """What speaks against the order being kept: True where it does, False where it cannot, as of no other batch.

    A collator that sorts by length does so every time; one that makes labels of texts makes them so every time. One
    batch in which it does not clears it. None where a batch says nothing.
    """
    return {LENGTHS: _is_sorted_anew(samples, batch), KINDS: _is_mixed(samples, batch)}


def _is_sorted_anew(samples: Sequence[Any], batch: Any) -> bool | None:
    """Whether rows stand in the order of their lengths while the samples they were made of do not.

    Where the samples say nothing of their lengths, rows in that order are taken for sorted.
    """
    said = [of for of in _lengths(batch, len(samples)) if len(set(of)) >= _LEAST]
    if not said:
        return None
    if not any(_is_sorted(of) for of in said):
        return False
    return None if any(_is_alike(sizes) for sizes in _sizes(samples)) else True


def _is_mixed(samples: Sequence[Any], batch: Any) -> bool | None:
    """Whether a batch's labels are as many of each kind as some value of the samples, and not where that is."""
    n = len(samples)
    of_samples = [kinds for values in _values(samples) if (kinds := _kinds(values)) is not None]
    of_batch = [kinds for values in _labels(batch, n) if (kinds := _kinds(values)) is not None]
    if not of_samples or not of_batch:
        return None
    if any(given == made for given in of_samples for made in of_batch):
        return None
    return any(_counts(given) == _counts(made) for given in of_samples for made in of_batch)


def _kinds(values: Sequence[Hashable]) -> list[int] | None:
    """Each value by the place of the first that is like it; None where all are alike, or none are."""
    first: dict[Hashable, int] = {}
    found = [first.setdefault(value, place) for place, value in enumerate(values)]
    return found if 1 < len(first) < len(values) else None


def _counts(kinds: Sequence[int]) -> list[int]:
    return sorted(kinds.count(kind) for kind in set(kinds))


def _values(samples: Sequence[Any]) -> Iterator[list[Hashable]]:
    """The parts of the samples that are one text or whole number each."""
    first = samples[0]
    if isinstance(first, Mapping):
        for key in first:
            if all(isinstance(one, Mapping) and key in one for one in samples):
                yield from _values([one[key] for one in samples])
    elif isinstance(first, tuple) or (isinstance(first, list) and not all(isinstance(v, (int, float)) for v in first)):
        for place in range(min(len(first), _MOST)):
            if all(isinstance(one, (tuple, list)) and len(one) == len(first) for one in samples):
                yield from _values([one[place] for one in samples])
    else:
        found = [one.item() if getattr(one, "ndim", None) == 0 else one for one in samples]
        if all(isinstance(one, (str, int)) for one in found):
            yield found


def _labels(batch: Any, n: int) -> Iterator[list[Hashable]]:
    """The parts of a batch that are one whole number a row."""
    if isinstance(batch, torch.Tensor):
        if batch.shape == (n,) and not batch.is_floating_point():
            yield batch.tolist()
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _labels(part, n)
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _labels(part, n)


def _lengths(batch: Any, n: int, name: str = "") -> Iterator[list[int]]:
    """The lengths of a batch's rows: as it names them, by its masks, or by where its rows are only filled up."""
    if isinstance(batch, Mapping):
        for key, part in batch.items():
            yield from _lengths(part, n, str(key).lower())
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _lengths(part, n, name)
    if not isinstance(batch, torch.Tensor) or batch.ndim == 0 or len(batch) != n:
        return
    if batch.ndim == 1:
        if any(word in name for word in _NAMED):
            yield [int(one) for one in batch.tolist()]
    elif batch.ndim == 2 and "mask" in name:
        yield (batch != 0).sum(1).tolist()
    elif batch.ndim <= 3 and batch.shape[1] > 1:
        differs = (batch[:, 1:] != batch[:, :-1]).flatten(2).any(2) if batch.ndim > 2 else batch[:, 1:] != batch[:, :-1]
        places = torch.arange(1, batch.shape[1])
        yield (differs * places).amax(1).tolist()  # filled up behind
        yield (differs * places.flip(0)).amax(1).tolist()  # or before


def _sizes(samples: Sequence[Any], name: str = "") -> Iterator[list[int]]:
    """How long each part of the samples is: of texts in words and letters, of rows of values in these; or says so."""
    first = samples[0]
    if isinstance(first, Mapping):
        for key in first:
            if all(isinstance(one, Mapping) and key in one for one in samples):
                yield from _sizes([one[key] for one in samples], str(key).lower())
    elif isinstance(first, tuple):
        for place in range(len(first)):
            if all(isinstance(one, tuple) and len(one) == len(first) for one in samples):
                yield from _sizes([one[place] for one in samples])
    elif all(isinstance(one, str) for one in samples):
        yield [len(one.split()) for one in samples]
        yield [len(one) for one in samples]
    elif all(isinstance(one, int) for one in samples) and any(word in name for word in _NAMED):
        yield list(samples)
    elif all(hasattr(one, "__len__") and getattr(one, "ndim", 1) > 0 for one in samples):
        yield [len(one) for one in samples]


def _is_sorted(values: Sequence[int]) -> bool:
    pairs = list(pairwise(values))
    return all(a <= b for a, b in pairs) or all(a >= b for a, b in pairs)


def _is_alike(sizes: Sequence[int]) -> bool:
    """Whether the samples are in the order of these sizes themselves, as of a sampler that groups them by length."""
    if len(set(sizes)) < _LEAST:
        return False
    found = torch.tensor(sizes, dtype=torch.float64)
    ranks = (found[:, None] > found).sum(1) + ((found[:, None] == found).sum(1) - 1) / 2
    pair = torch.stack([ranks.double(), torch.arange(len(sizes), dtype=torch.float64)])
    return bool(torch.corrcoef(pair)[0, 1].abs() >= _ALIKE)
