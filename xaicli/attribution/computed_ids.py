"""What a model makes of ids beside the look-ups that are followed: it computes other ids, or reads them as numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from xaicli.attribution.flow import Flow
from xaicli.attribution.frozen import FrozenModel
from xaicli.attribution.lookups import EMBEDDINGS, KeptCalls, LookedUp, Lookup, Replayed

Outputs = Callable[[Any], Tensor]

_FEW = 2
_TRIED = 16
_OTHERS = 6
"""Places, and ids at each, that are tried in an input's stead."""
_ASKED = 6
"""Ids that others are tried for where the whole model has to run."""
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}
"""How far two answers alike may be apart, relative to the largest."""
_MASK_LIKE = 3
"""Answers that what only tells two tokens from all others has: padding, an end of the text, and any other."""


def computed_from(
    frozen: FrozenModel, batches: Sequence[Tensor], position: int, flow: Flow, lookups: Sequence[Lookup]
) -> bool:
    """Whether look-ups that were not followed are of an input's ids all the same: asked with other ids in their place.

    Positions, types and what is told from where a padding token stands stay out of it: there another id makes one of
    few answers, as it is such a token or none. What is computed from the ids themselves differs with each id, also
    where it went through a list or numpy on its way. What is computed from what embeddings make of them does not, as
    these answer as they did: the codes of a quantised layer, which autograd passes by or not.

    Args:
        frozen: The frozen copy.
        batches: All inputs, (sample, ...).
        position: Which input.
        flow: What a pass of the first few samples showed.
        lookups: Those of this input that are followed.
    """
    if not flow.unfollowed:
        return False
    few = first_of(frozen, batches)
    every, device = _by_place(batches[position]), batches[position].device
    ids, shape = _by_place(few[position]), few[position].shape

    followed = {lookup.call for lookup in lookups} - set(flow.unfollowed)
    with torch.no_grad(), KeptCalls(EMBEDDINGS, followed) as seen:
        if followed:
            frozen([x.clone() for x in few])

    def looked_up(changed: Tensor) -> Tensor | None:
        given = changed.view(shape).to(device, copy=True)
        return _looked_up(frozen, [*few[:position], given, *few[position + 1 :]], flow, seen.found)

    clean = looked_up(ids)
    if clean is None:
        return False
    # A value that one column has may be none of another's table.
    by_column = len({lookup.table for lookup in lookups}) > 1
    order = torch.Generator().manual_seed(0)
    found = looked_up(_shuffled(ids, every, order, by_column=by_column))
    if found is not None and torch.equal(found, clean):
        return False
    return any(
        _differs_with_each(looked_up, clean, changed) for changed in _changed(ids, every, order, by_column=by_column)
    )


def read_besides(
    frozen: FrozenModel, batches: Sequence[Tensor], position: int, outputs: Outputs, lookups: Sequence[Lookup]
) -> bool:
    """Whether a model's answers depend on an input's ids in another way than by what embeddings make of them.

    As one-hot codes times a matrix, or as numbers: asked with other ids while all embeddings answer as they did. Masks
    and lengths, which are told from where a padding token stands, stay out of it as in `computed_from`.

    Args:
        frozen, batches, position, lookups: As `computed_from`.
        outputs: The numbers that count in what the model returns.
    """
    asked = _Beside(frozen, batches, position, outputs)
    by_column = len({lookup.table for lookup in lookups}) > 1
    order = torch.Generator().manual_seed(0)
    found = asked.answered(_shuffled(asked.ids, asked.every, order, by_column=by_column))
    if found is not None and asked.alike(found, asked.before):
        return False
    changes = islice(_changed(asked.ids, asked.every, order, by_column=by_column), _ASKED)
    return any(_differs_with_each(asked.answered, asked.before, changed, asked.alike) for changed in changes)


def read_as_numbers(
    frozen: FrozenModel, batches: Sequence[Tensor], position: int, outputs: Outputs, places: Collection[int]
) -> bool:
    """Whether a model reads the numbers at places that no embedding looks up, and not only whether tokens stand there.

    Args:
        frozen, batches, position, outputs: As `read_besides`.
        places: Which.
    """
    asked = _Beside(frozen, batches, position, outputs)
    # Small numbers, too: behind the longest text there may be nothing but padding.
    values = sorted({*asked.every.flatten().tolist(), *range(_OTHERS)})
    order = torch.Generator().manual_seed(0)
    for place in sorted(places)[:_OTHERS]:
        answers = [asked.before]
        for k in torch.randperm(len(values), generator=order)[:_OTHERS].tolist():
            ids = asked.ids.clone()
            ids[:, place] = values[k]
            found = asked.answered(ids)
            if found is not None and not any(asked.alike(found, before) for before in answers):
                answers.append(found)
        # One more: the samples as they are may hold padding in some rows and other tokens in others.
        if len(answers) > _MASK_LIKE + 1:
            return True
    return False


class _Beside:
    """What a model answers with other ids while all embeddings answer as they did."""

    def __init__(self, frozen: FrozenModel, batches: Sequence[Tensor], position: int, outputs: Outputs) -> None:
        self._frozen, self._position, self._outputs = frozen, position, outputs
        self._few = first_of(frozen, batches)
        self.every, self.ids = _by_place(batches[position]), _by_place(self._few[position])
        with torch.no_grad(), KeptCalls(EMBEDDINGS) as seen:
            self.before = outputs(frozen([x.clone() for x in self._few])).detach()
        self._seen = seen.found
        finite = self.before[self.before.isfinite()]
        self._most = _ROUNDING.get(self.before.dtype, 0.02) * float(finite.abs().max()) if finite.numel() else 0.0

    def answered(self, changed: Tensor) -> Tensor | None:
        """None where the model fails on them."""
        inputs, given = [x.clone() for x in self._few], self._few[self._position]
        inputs[self._position] = changed.view(given.shape).to(given.device, copy=True)
        try:
            with torch.no_grad(), Replayed(self._seen):
                found = self._outputs(self._frozen(inputs)).detach()
        except Exception:  # whatever another's forward raises of ids that are none of its samples
            return None
        return found if found.shape == self.before.shape else None

    def alike(self, one: Tensor, other: Tensor) -> bool:
        """Whether two answers are apart by no more than rounding."""
        return torch.allclose(one, other, rtol=0, atol=self._most, equal_nan=True)


def first_of(frozen: FrozenModel, batches: Sequence[Tensor]) -> list[Tensor]:
    """The first few samples, (sample, ...) of each input."""
    return frozen.together(batches, range(min(len(batches[0]), frozen.batch or _FEW)))


def _by_place(ids: Tensor) -> Tensor:
    """(sample, place) of an input on the CPU; one id a sample, (sample,), is its one place."""
    return ids.reshape(len(ids), -1).cpu()


def _looked_up(
    frozen: FrozenModel, given: Sequence[Tensor], flow: Flow, answers: Mapping[int, Tensor]
) -> Tensor | None:
    """The ids that were not followed, one behind the other; None where the model does not come so far."""
    with torch.no_grad(), LookedUp(flow.unfollowed, answers) as seen:
        try:
            frozen(given)
        except Exception:  # whatever another's forward raises of ids that are none of its samples
            if not seen.complete:
                return None
    if not seen.complete or any(ids.shape != flow.unfollowed[call].shape for call, ids in seen.found.items()):
        return None
    return torch.cat([seen.found[call][unknown] for call, unknown in flow.unfollowed.items()])


def _shuffled(ids: Tensor, every: Tensor, order: torch.Generator, *, by_column: bool) -> Tensor:
    """All ids changed at once, for others that there are."""
    if by_column:
        rows = torch.stack([column[torch.randperm(len(every), generator=order)] for column in every.T], 1)
        return rows[torch.arange(len(ids)) % len(rows)]
    values = torch.tensor(sorted(set(every.flatten().tolist())), dtype=ids.dtype)
    mixed: Tensor = values[torch.randperm(len(values), generator=order)][torch.searchsorted(values, ids)]
    return mixed


def _changed(ids: Tensor, every: Tensor, order: torch.Generator, *, by_column: bool) -> Iterator[list[Tensor]]:
    """For some ids: the samples with each of some others in its place, wherever it stands or in its column."""
    width = ids.shape[1]
    done = set()
    for place in dict.fromkeys((width - 1, *range(0, width, max(1, width // _TRIED)))):
        for value in ids[:_FEW, place].tolist():
            if (value, place if by_column else 0) in done:
                continue
            done.add((value, place if by_column else 0))
            where = ids == value
            if by_column:
                where &= torch.arange(width) == place
            others = sorted(set((every[:, place] if by_column else every).flatten().tolist()) - {value})
            chosen = torch.randperm(len(others), generator=order)[:_OTHERS].tolist()
            yield [ids.masked_fill(where, others[k]) for k in chosen]


def _differs_with_each(
    answered: Callable[[Tensor], Tensor | None],
    clean: Tensor,
    changed: list[Tensor],
    alike: Callable[[Tensor, Tensor], bool] = torch.equal,
) -> bool:
    answers = [clean]
    for ids in changed:
        found = answered(ids)
        if found is not None and not any(alike(found, before) for before in answers):
            answers.append(found)
    return bool(changed) and len(answers) > min(_MASK_LIKE, len(changed))
