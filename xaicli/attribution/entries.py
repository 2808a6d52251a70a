"""Where attributions are taken: at inputs of floats, and at what embeddings make of inputs of token ids."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xaicli.attribution.computed_ids import Outputs, computed_from, first_of, read_as_numbers, read_besides
from xaicli.attribution.flow import Flow, flow_of
from xaicli.attribution.frozen import BatchError, FrozenModel
from xaicli.attribution.given import GivenModel
from xaicli.attribution.lookups import EMBEDDINGS, KeptCalls, LookingUp, Lookup, lookup_at, side_by_side
from xaicli.errors import UsageError, XaiError
from xaicli.heads.calling import parameter_names, parameters_of

_ROWS = 32
_NAMED = 8
_MOST_BESIDE = 8
"""Samples that may stand beside every batch, so that ids are cut alike in each."""
_MASKS = ("mask", "padding", "valid")


@dataclass(frozen=True)
class Entry:
    """Where attributions are taken: an input itself, or what embeddings make of an input of token ids.

    Attributes:
        name: The input's name.
        position: Which input.
        lookups: The calls of embeddings that look its ids up, whose answers the entry holds side by side; none for an
            input of floats.
        read: Which axis the model's first layer reads as channels, where that is known.
        mask: Which input says which of its tokens count, where one is called an attention mask.
    """

    name: str
    position: int
    lookups: tuple[Lookup, ...] = ()
    read: int | None = None
    mask: int | None = None

    @property
    def tokens(self) -> bool:
        """Whether it is a sequence of embedded tokens."""
        return bool(self.lookups)

    @property
    def looked_up(self) -> frozenset[int]:
        """The places of a sample that embeddings look up."""
        return frozenset[int]().union(*(lookup.read for lookup in self.lookups))


def entries_of(
    frozen: FrozenModel, given: GivenModel, batches: Sequence[Tensor], outputs: Outputs
) -> tuple[tuple[Entry, ...], list[Tensor], Flow, list[str]]:
    """Where attributions are taken: at float inputs, and at the embedding of token ids.

    Args:
        frozen: The frozen copy; where it has other ways to look up ids than embeddings, it is changed to use those.
        given: The model itself.
        batches: All inputs, (sample, ...).
        outputs: The numbers that count in what the model returns.

    Returns:
        The entries; the clean values there, (sample, ...) each; what way the inputs take; what to say of the others.

    Raises:
        XaiError: No input has a gradient.
    """
    known = parameter_names(given.model, given.names)
    flow, tokens = _ways(frozen, batches)
    if any(not x.is_floating_point() and not _is_mask(known[i]) for i, x in enumerate(batches)):
        plain, frozen.model = frozen.model, LookingUp(frozen.model)
        others, found = _ways(frozen, batches)
        if _calls(others) > _calls(flow):
            flow, tokens = others, found
        else:
            frozen.model = plain
    frozen.beside = _beside(frozen, batches, flow, tokens)
    if frozen.beside:
        flow, tokens = _ways(frozen, batches)
    left = _masks(batches, tokens, known)
    notes: list[str] = []
    entries: list[Entry] = []
    points: list[Tensor] = []
    for position, x in enumerate(batches):
        name = given.names[position]
        if position in tokens:
            if known[position] == "labels" and "decoder_input_ids" in parameters_of(given.model)[0]:
                raise _shifted()
            if computed_from(frozen, batches, position, flow, tokens[position]):
                raise _lost(name or known[position])
            lookups, point = _looked_up(frozen, batches, position, name or known[position], tokens[position])
            if unread := set(range(math.prod(x.shape[1:]))) - {place for each in lookups for place in each.read}:
                said, numbers = name or known[position], unread & flow.otherwise.get(position, set())
                if numbers and read_as_numbers(frozen, batches, position, outputs, numbers):
                    raise _numbers(_columns(numbers, x.shape), said)
                notes.append(f"{_columns(unread, x.shape)} of {said}: looked up by no embedding, and so not explained")
            if read_besides(frozen, batches, position, outputs, tokens[position]):
                raise _besides(name or known[position])
            notes += _computed(flow, position, name or known[position], lookups)
            mask = _attention_mask(position, known, batches)
            entries.append(Entry(name, position, lookups, mask=mask))
            points.append(point)
        elif x.is_floating_point() and position not in left:
            entries.append(Entry(name, position, read=flow.read.get(position)))
            points.append(x)
    if not entries:
        lost = [
            given.names[i] or known[i]
            for i, x in enumerate(batches)
            if not x.is_floating_point() and computed_from(frozen, batches, i, flow, ())
        ]
        raise XaiError(
            "the model has no input with a gradient"
            + (
                f": forward looks up ids that it computes from {', '.join(lost)}, and it is not known any more whose "
                "they are"
                if lost
                else ""
            ),
            hint="ids are explained where an nn.Embedding, an nn.EmbeddingBag or table[ids] looks them up as they are, "
            "rows of one length: of a table, give each column that is looked up as an input of its own; numbers need a "
            "float dtype; one-hot codes can be the input themselves",
        )
    notes += [f"{given.names[i] or known[i]} is a mask: it is passed on with its sample, not explained" for i in left]
    notes += [
        f"{given.names[i] or known[i]} holds whole numbers that no embedding looks up as they are: not explained"
        for i, x in enumerate(batches)
        if not x.is_floating_point() and i not in tokens and x.dtype != torch.bool and not _is_mask(known[i])
    ]
    return tuple(entries), points, flow, notes


def _ways(frozen: FrozenModel, batches: Sequence[Tensor]) -> tuple[Flow, dict[int, tuple[Lookup, ...]]]:
    """What way the inputs take, and the embeddings' calls that look up those of whole numbers."""
    few = first_of(frozen, batches)
    with torch.enable_grad():
        entered = [x.requires_grad_().clone() if x.is_floating_point() else x for x in few]
        flow, _ = flow_of(lambda: frozen.forward(entered), entered)
    found = {i: _lookups(flow, i) for i, x in enumerate(batches) if not x.is_floating_point()}
    return flow, {i: lookups for i, lookups in found.items() if lookups}


def _beside(
    frozen: FrozenModel, batches: Sequence[Tensor], flow: Flow, tokens: Mapping[int, Sequence[Lookup]]
) -> tuple[int, ...]:
    """Samples beside which as many ids of any other are looked up as of all together; none where it is so anyway.

    Some models cut a batch to its longest text before they look it up, `ids[:, : lengths.max()]` or
    `ids[:, mask.any(0)]`.
    Which columns of a text have a gradient would be a matter of the chunk that it is in.
    """
    n = len(batches[0])
    tried = [i for i in tokens if batches[i].ndim > 1 and (len(batches) > 1 or flow.otherwise.get(i))]
    if not tried or n == 1 or frozen.batch is not None:
        return ()
    calls = {lookup.call for i in tokens for lookup in tokens[i]}

    def looked_up(samples: Sequence[int]) -> int:
        given = frozen.together(batches, samples)
        try:
            with torch.no_grad():
                seen, _ = flow_of(lambda: frozen.forward(given), given, ids_alone=True)
        except BatchError:  # of texts without a token, cut to nothing
            return 0
        every = [one for found in (seen.embedded, seen.maybe_embedded) for some in found.values() for one in some]
        return sum(len(one.places) for one in every if one.call in calls)

    alone = {row: looked_up([row]) for row in _of_all_lengths(batches, tried)}
    if len({*alone.values(), looked_up(range(min(n, 2)))}) == 1:
        return ()
    chosen = [max(alone, key=lambda row: alone[row])]
    most = alone[chosen[0]]
    for first in range(0, n, frozen.at_once(_ROWS)):
        every = range(first, min(n, first + frozen.at_once(_ROWS)))
        while len(chosen) < _MOST_BESIDE and looked_up([*chosen, *every]) > most:
            part = every
            while len(part) > 1:
                halves = part[: len(part) // 2], part[len(part) // 2 :]
                part = max(halves, key=lambda half: looked_up([*chosen, *half]))
            chosen.append(part[0])
            most = looked_up(chosen)
    for row in chosen[:-1]:
        others = [other for other in chosen if other != row]
        chosen = others if looked_up(others) == most else chosen
    return tuple(chosen)


def _of_all_lengths(batches: Sequence[Tensor], tokens: Sequence[int]) -> list[int]:
    """Samples among which the shortest and the longest are: told by what fills them up, and by masks and lengths."""
    figures = []
    for i, x in enumerate(batches):
        if i in tokens:
            ids = x.flatten(1)
            figures.append((ids == ids[:, -1:]).flip(1).int().cumprod(1).sum(1))
            figures.append((ids == ids[:, :1]).int().cumprod(1).sum(1))
        else:
            figures.append(x.reshape(len(x), -1).double().sum(1))
    return sorted({int(row) for figure in figures for row in (figure.argmin(), figure.argmax())})


def _calls(flow: Flow) -> int:
    """How many look-ups a pass showed: of inputs' values, and others."""
    followed = {each.call for found in (flow.embedded, flow.maybe_embedded) for some in found.values() for each in some}
    return len(followed | set(flow.unfollowed))


def _lookups(flow: Flow, position: int) -> tuple[Lookup, ...]:
    """The look-ups of an input's own values, and those of what was computed from it that are of its tokens, too.

    Those are the ones that alone look up these places, and those in the table that holds the own values' rows: a
    decoder's, say, of the ids moved on by one with something in the place of what fills them up.
    """
    own, computed = flow.embedded.get(position, []), flow.maybe_embedded.get(position, [])
    read = {place for lookup in own for place in lookup.read}
    tables = {lookup.table for lookup in own} - {0}
    counts = Counter(place for lookup in computed for place in lookup.read)
    alone = [c for c in computed if not read & c.read and all(counts[place] == 1 for place in c.read)]
    again = [c for c in computed if read & c.read and c.table in tables]
    return tuple(sorted((*own, *alone, *again), key=lambda lookup: lookup.call))


def _columns(places: Iterable[int], shape: Sequence[int]) -> str:
    """Places of a sample for a sentence."""
    found = sorted(places)
    said = ", ".join(str(place) for place in found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")
    return f"{'column' if len(shape) == 2 else 'place'}{'s' if len(found) > 1 else ''} {said}"


def _shifted() -> UsageError:
    """The refusal of labels that a model of two texts makes its decoder's ids of."""
    return UsageError(
        "labels: the model makes its decoder's ids of them, moved on by one behind the token that starts a text",
        hint="give decoder_input_ids in their place; of most models in transformers "
        "model.prepare_decoder_input_ids_from_labels(labels=labels) makes them",
    )


def _numbers(columns: str, name: str) -> UsageError:
    return UsageError(
        f"{columns} of {name}: read as numbers, where others are ids that embeddings look up",
        hint="give the numbers as an input of their own of floats, forward(ids, numbers): whole numbers have no "
        "gradient",
    )


def _computed(flow: Flow, position: int, name: str, lookups: Sequence[Lookup]) -> list[str]:
    """What is said of look-ups of what forward computes from the ids, beside those of the ids themselves."""
    explained = {lookup.call for lookup in lookups}
    read = {place for lookup in lookups for place in lookup.read}
    others = [each for each in flow.maybe_embedded.get(position, []) if each.call not in explained and each.read & read]
    if not others:
        return []
    return [
        f"forward also looks up what it computes from {name}, in {len(others)} embedding{'s'[: len(others) > 1]}: "
        "explained is the look-up of the ids themselves"
    ]


def categories_in(given: GivenModel, flow: Flow, batches: Sequence[Tensor]) -> UsageError | None:
    """The refusal of ids that lie among floats: noise and paths would make others of them.

    Args:
        given: The model itself.
        flow: What way its inputs take.
        batches: All inputs, (sample, ...).

    Returns:
        None where there are none.

    Raises:
        UsageError: All of an input are ids, so that it has no gradient at all.
    """
    known = parameter_names(given.model, given.names)
    for position, x in enumerate(batches):
        if not x.is_floating_point() or not (lookups := flow.embedded.get(position)):
            continue
        name, places = given.names[position] or known[position], {place for each in lookups for place in each.read}
        if len(places) == math.prod(x.shape[1:]):
            raise UsageError(f"{name} holds ids as floats, which embeddings look up", hint=f"give {name} as int64")
        return UsageError(
            f"{_columns(places, x.shape)} of {name}: ids among numbers, which embeddings look up after .long(); noise "
            "and paths would make other categories of them",
            hint="give the ids as an input of their own of whole numbers, forward(ids, numbers), and each is explained "
            "at its embedding; --methods gradient explains the numbers alone",
        )
    return None


def _masks(batches: Sequence[Tensor], tokens: Mapping[int, Any], names: Sequence[str]) -> list[int]:
    """Float inputs beside token ids that say which tokens count: noise on them would change which text is read."""
    shapes = {tuple(batches[i].shape) for i in tokens}
    return [
        i
        for i, x in enumerate(batches)
        if tokens
        and x.is_floating_point()
        and (_is_mask(names[i]) or (tuple(x.shape) in shapes and bool(((x == 0) | (x == 1)).all())))
    ]


def _attention_mask(position: int, names: Sequence[str], batches: Sequence[Tensor]) -> int | None:
    """Which input holds 1 for the tokens of this one that count and 0 for those that fill it up.

    Told by its name alone: what another mask means is not known.
    """
    wanted = "decoder_attention_mask" if names[position].startswith("decoder_") else "attention_mask"
    place = names.index(wanted) if wanted in names else None
    if place is None or batches[place].shape != batches[position].shape:
        return None
    return place if bool(((batches[place] == 0) | (batches[place] == 1)).all()) else None


def _is_mask(name: str) -> bool:
    return any(word in name.lower() for word in _MASKS)


def _looked_up(
    frozen: FrozenModel, batches: Sequence[Tensor], position: int, name: str, lookups: Sequence[Lookup]
) -> tuple[tuple[Lookup, ...], Tensor]:
    """The embeddings' calls with the widths they give, and what they give for all samples, (sample, ..., width).

    Where some places of a sample get fewer numbers than others, zeros fill them up.
    """
    shape = batches[position].shape
    n, step, per = len(batches[0]), frozen.at_once(_ROWS), math.prod(shape[1:])
    found: dict[int, list[Tensor]] = {lookup.call: [] for lookup in lookups}
    places: dict[int, list[Tensor]] = {lookup.call: [] for lookup in lookups}
    for first in range(0, n, step):
        given = frozen.together(batches, range(first, min(n, first + step)))
        with torch.no_grad(), KeptCalls(EMBEDDINGS, found) as seen:
            flow, _ = flow_of(lambda given=given: frozen.forward(given), given, ids_alone=True)  # type: ignore[misc]
        here = {each.call: each for each in (*flow.embedded.get(position, []), *flow.maybe_embedded.get(position, []))}
        count = min(step, n - first)
        for lookup in lookups:
            rows = lookup.by_sample(seen.found[lookup.call], len(given[0]))
            found[lookup.call].append(rows[:count])
            if lookup.call not in here:
                raise _lost(name)
            places[lookup.call].append(here[lookup.call].by_row(len(given[0]))[:count])
    values = [torch.cat(parts) for parts in found.values()]
    lookups = [lookup_at(one.call, torch.cat(places[one.call]), one.lead, one.table) for one in lookups]
    lookups, _ = side_by_side(lookups, [x.shape[-1] for x in values], per)
    on_device = [one if one.each is None else replace(one, each=one.each.to(values[0].device)) for one in lookups]
    return tuple(on_device), _point(on_device, values, shape)


def _point(lookups: Sequence[Lookup], values: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """(sample, ..., width) of what each look-up gives, (sample, place of the call, width of the call)."""
    n, width = shape[0], max(lookup.start + lookup.width for lookup in lookups)
    point = values[0].new_zeros(n, math.prod(shape[1:]), width)
    for lookup, x in zip(lookups, values, strict=True):
        at = lookup.by_row(n).to(x.device)
        row, to = (at >= 0).nonzero(as_tuple=True)
        point[row, at[row, to], lookup.start : lookup.start + lookup.width] = x[row, to]
    return point.reshape(*shape, width)


def points_of(frozen: FrozenModel, batches: Sequence[Tensor], entry: Entry) -> Tensor:
    """The clean values at an entry as a model has them, (sample, ...): of token ids what its own embeddings give.

    Args:
        frozen: The model that the entry is of, with these weights or others.
        batches: All inputs, (sample, ...).
        entry: Where attributions are taken.
    """
    if not entry.tokens:
        return batches[entry.position]
    n, step = len(batches[0]), frozen.at_once(_ROWS)
    found: dict[int, list[Tensor]] = {lookup.call: [] for lookup in entry.lookups}
    for first in range(0, n, step):
        given = frozen.together(batches, range(first, min(n, first + step)))
        with torch.no_grad(), KeptCalls(EMBEDDINGS, found) as seen:
            frozen.forward(given)
        for lookup in entry.lookups:
            rows = lookup.by_sample(seen.found[lookup.call], len(given[0]))
            found[lookup.call].append(rows[: min(step, n - first)])
    return _point(entry.lookups, [torch.cat(parts) for parts in found.values()], batches[entry.position].shape)


def _lost(name: str) -> UsageError:
    return UsageError(
        f"forward looks up ids that it computes from {name}, and of these it is not known any more whose they are "
        "(sorted, added up with others, taken through a list or numpy)",
        hint="the ids that are looked up as they are would be explained and the others left out: compute those before "
        "the model and give them as an input of their own, forward(ids, computed)",
    )


def _besides(name: str) -> UsageError:
    return UsageError(
        f"forward reads {name} in another way beside the embeddings that look it up (one-hot codes, or the ids as "
        "numbers)",
        hint="the look-ups alone would be explained and the rest left out: use an nn.Embedding, or table[ids], in "
        "place of one_hot(ids) @ table; give numbers as an input of their own of floats, forward(ids, numbers)",
    )
