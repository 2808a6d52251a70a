"""What each loader of a Lightning training gave of a batch, and whose rows these are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import torch
from torch.utils.data import default_collate

from xaicli.heads.outputs import NAMED
from xaicli.integrations.answers import distinct, is_same, same, tensors_of, which_of
from xaicli.integrations.capture import Judged, Step
from xaicli.integrations.collators import SeenOrders, Unknown, rows_said
from xaicli.integrations.identity import by_parts, nested_ids, place_of_ids
from xaicli.integrations.loading import Fetched, Loading, Watch
from xaicli.integrations.order import (
    Order,
    has_places_first,
    order_in,
    order_of_same,
    rows_apart,
    rows_in,
    with_samples_first,
)
from xaicli.integrations.recording import Recording, rows_of
from xaicli.vocabulary import Mode

_STAGES = {"train": Mode.TRAIN, "validate": Mode.EVAL, "test": Mode.TEST, "predict": Mode.INFER}
_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_MOST_TOGETHER = 4
"""So many loaders' labels are looked for in any order, one below the other."""
_ROW_NUMBERS = (
    "no sample ids in the batches: the rows' numbers in the dataset are taken, as the loader's sampler gave them; "
    "let the dataset yield (id, input, label), or a dict with sample_id, to have your own, or say where they are: "
    "XaiCallback(..., ids=2) for (input, label, id)"
)

_BY_NUMBER = "the rows' numbers in the dataset, as the loader's sampler gave them"
_ASKED = "what stands in it does not tell whose row is whose: let the dataset yield ids and the collate_fn return them"
_OTHER_COUNT = (
    "the collate_fn makes batches of more or fewer rows than it is given samples, and whose rows these are is not "
    "known: let the dataset yield ids and the collate_fn return those of the samples it takes"
)
_LABELS_FIRST = (
    "the first part of a batch, a whole number a sample, is given to a criterion as its labels: it is not taken for "
    "ids; let the dataset yield (id, input, label), or a dict with sample_id, or say XaiCallback(..., ids=0)"
)
_REPEATED_FIRST = (
    "the first part of a batch, a whole number a sample, is the same of several samples: it is no longer taken for "
    "ids, though rows of batches before may stand under it; let the dataset yield (id, input, label), or a dict with "
    "sample_id, or say XaiCallback(..., ids=0)"
)
_HOOK = f"a hook ({', '.join(_HOOKS)})"
_HOOK_DISORDER = (
    f"{_HOOK} makes batches of which nothing shows whose rows they "
    "hold: let the dataset yield ids and the hook keep them beside their rows"
)
_HOOK_UNSHOWN = (
    f"nothing shows in which order {_HOOK} gives a batch's samples: "
    "they are taken to be in the batch's order; say XaiCallback(..., keeps_order=True) that it is so, or "
    "keeps_order=False to leave such rows out"
)
_HOOK_WRONGLY = (
    f"{_HOOK} gives a batch's samples in another order, after "
    "{rows} of batches whose order nothing showed were taken to be in the batch's: these may stand under the ids of "
    "others"
)
_DISORDER = "puts a batch in another order than it was given its samples"
_REMADE = (
    "the loader's batches are made anew by its own walk over them, or were fetched before the callback stood beside "
    "it, and whose rows they hold is not known: let the dataset yield ids"
)
_NO_NUMBERS = (
    "the loader's sampler gives something else than whole numbers, so that rows have no numbers: let the dataset yield "
    "(id, input, label), or a dict with sample_id"
)
_SOME_OTHERS = (
    "some rows of the collate_fn's batches are none of its samples, changed or put in their place: they are left out, "
    "as whose they are is not known; let the dataset yield ids and the collate_fn return them"
)
_UNSHOWN = (
    "nothing in a batch of the collate_fn shows that it keeps its samples' order, and keeps_order=False says that it "
    "may not: let the dataset yield ids and the collate_fn return them"
)
_NUMBERLESS = {
    Unknown.OTHER_COUNT: _OTHER_COUNT,
    Unknown.REORDERED: f"the collate_fn {_DISORDER}, and {_ASKED}",
    Unknown.UNSHOWN: _UNSHOWN,
}
"""Why rows have no numbers, by what is not known of them."""


@dataclass(frozen=True)
class Part:
    """What one loader gave of a batch: all of it, unless several loaders make it together.

    Attributes:
        batch: It, by the parts of its samples where it holds these in lists.
        given: It, as the step was given it.
        loader: The loader.
        ds_id: The data set.
        labels: The labels in it.
        ids: The ids in it, or in what a hook made it of; None without.
        found: Where its ids were found, in words.
        unknown: Why it is not known whose row each id is.
        before: What it was before a hook of the module's made this of it; None without.
        listed: How many samples it holds, where it holds them, or their parts, in lists; None where its tensors say it.
        are_samples: Whether it was given as a list of samples.
    """

    batch: Any
    given: Any = None
    loader: Any = None
    ds_id: str = ""
    labels: Any = None
    ids: Any = None
    found: str = ""
    unknown: str | None = None
    before: Part | None = None
    listed: int | None = None
    are_samples: bool = False

    @property
    def rows(self) -> int | None:
        """How many samples it holds."""
        return rows_of(self.batch, None) if self.listed is None else self.listed


class Held:
    """The parts of a batch before a step, or a hook, takes some out of it, as `ids = batch.pop("sample_id")` does.

    Args:
        batch: The batch, as it comes.
        depth: So deep lists and dicts in it are looked into.
    """

    def __init__(self, batch: Any, depth: int = 3) -> None:
        parts = _entries_held(batch) if depth else None
        self._parts = None if parts is None else {at: (part, Held(part, depth - 1)) for at, part in parts.items()}

    def put_back(self, batch: Any) -> Any:
        """The batch as it was left, with what was taken out put back; itself where nothing was."""
        now = None if self._parts is None else _entries_held(batch)
        if now is None or self._parts is None:
            return batch
        is_list = isinstance(batch, list)
        if is_list and len(now) < len(self._parts):
            return [part for part, _ in self._parts.values()]  # where in it a part was taken out is not known
        changed = {at: part for at, (part, _) in self._parts.items() if at not in now}
        for at, (_, held) in self._parts.items():
            if at in now and (left := held.put_back(now[at])) is not now[at]:
                changed[at] = left
        if not changed:
            return batch
        made = copy(batch)
        for at, part in changed.items():
            made[at] = part
        return made


def _entries_held(batch: Any) -> dict[Any, Any] | None:
    """The parts of what a step may take some out of: a dict, a list; None of anything else."""
    if isinstance(batch, MutableMapping):
        return dict(batch)
    return dict(enumerate(batch)) if isinstance(batch, list) else None


class Rows:
    """The rows of a training's batches: their ids, or their numbers in the dataset.

    Args:
        recording: What says and counts.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._not_first: dict[int, str] = {}
        """Of loaders the first part of whose batches holds no ids, why."""
        self._assumed: dict[int, int] = {}
        """How many rows of a loader's batches were taken to be in the order of what its hooks were given."""
        self._loading = Loading()
        self._fetched: dict[int, Fetched] = {}
        """Of each loader that made the batch, whose rows it gave."""
        self._given: dict[int, tuple[Any, Held]] = {}
        """Of each, where hooks come between loader and step, what it gave."""
        self._turn: tuple[int, ...] = ()
        """In which order a step last laid what several loaders gave one below the other."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what is bound to this process."""
        return {**self.__dict__, "_loading": Loading(), "_fetched": {}, "_given": {}}

    def stand_beside(self, trainer: Any) -> list[Callable[[], None]]:
        """See of every loader which rows its batches are of, from before its workers are started.

        Returns:
            What undoes it.
        """
        strategy, own = trainer.strategy, trainer.strategy.process_dataloader

        def process(loader: Any) -> Any:
            processed = own(loader)
            self._recording.guarded("watching a loader", lambda: self._loading.watch(processed))
            return processed

        precision = trainer.precision_plugin
        convert = precision.convert_input

        def fetched(batch: Any) -> Any:
            """Every batch comes by here as its loader gave it, those too that no step is run for, or one several."""
            self._recording.guarded("numbering rows", lambda: self._note(trainer, batch))
            return convert(batch)

        strategy.process_dataloader, precision.convert_input = process, fetched
        return [
            partial(strategy.__dict__.pop, "process_dataloader", None),
            partial(precision.__dict__.pop, "convert_input", None),
            self._loading.release,
        ]

    def _note(self, trainer: Any, batch: Any) -> None:
        """Remember which rows a batch is of, for the step that is run for it."""
        self._fetched, self._given = {}, {}
        mode = _STAGES.get(getattr(trainer.state.stage, "value", ""))
        if mode is None:
            return
        loaders, together = loaders_of(trainer, mode)
        numbers = range(len(listed(loaders))) if not together else (0,)
        for number in numbers:
            for piece, _, loader in _pieces(loaders, together, batch, number):
                watch = self._loading.of(loader)
                if watch is not None and (fetched := watch.take(piece)) is not None:
                    self._fetched[id(loader)] = fetched
                if _has_hooks(trainer):
                    self._given[id(loader)] = piece, Held(piece)

    def parts_of(self, trainer: Any, mode: Mode, batch: Any, number: int) -> list[Part]:
        """The batch by the loaders that made it."""
        return [self._part(*piece) for piece in _pieces(*loaders_of(trainer, mode), batch, number)]

    def _part(self, piece: Any, ds_id: str, loader: Any) -> Part:
        """What a loader gave, as hooks and the step left it, with what was taken out of it put back."""
        part = self._read(piece, ds_id, loader)
        if id(loader) not in self._given:
            return part
        given, held = self._given[id(loader)]
        before = self._read(held.put_back(given), ds_id, loader)
        if before.given is piece:
            return part
        is_remade = part.batch is piece and rows_of(piece, None) != rows_of(before.given, None)
        return replace(part, before=before, listed=None if is_remade else part.listed)

    def _read(self, piece: Any, ds_id: str, loader: Any) -> Part:
        fetched = self._fetched.get(id(loader))
        order = Order() if fetched is None or fetched.order is None else fetched.order
        are_samples = order.are_samples and isinstance(piece, (list, tuple)) and len(piece) == order.rows
        found = by_parts(piece, are_samples=are_samples)
        rows = order.rows if found.rows is None else found.rows
        label = self._recording.label_in(found.batch)
        return Part(found.batch, piece, loader, ds_id, label, listed=rows, are_samples=found.are_samples)

    def shared_out(self, step: Step, parts: Sequence[Part]) -> list[tuple[Part, Any]]:
        """Each loader's part with what the step answered about it; None where that is not known.

        That is what it returned by loader, what a criterion was given beside the loader's labels, or those rows of
        what one was given that stand beside these, where the labels of all loaders stand one below the other.
        """
        found = _with_own_labels(step, parts)
        if not any(found):
            found = self._in_turn(step, parts)
        named = by_loader(step.returned, parts)
        of = zip(parts, found, named, strict=True)
        return [
            (part, judged if own is None or (judged and which_of(judged.answers, [own]) is not None) else own)
            for part, judged, own in of
        ]

    def _in_turn(self, step: Step, parts: Sequence[Part]) -> list[Judged | None]:
        """What a criterion was given of each loader's samples, where it was given these one below the other."""
        labels = [part.labels for part in parts if isinstance(part.labels, torch.Tensor) and part.labels.ndim]
        none: list[Judged | None] = [None for _ in parts]
        sizes = [one.numel() for one in labels]
        total, rows = sum(sizes), [part.rows or 0 for part in parts]
        together = [one for one in distinct(step.judged) if one.counts is not False and one.truth.numel() == total]
        if (
            len(labels) != len(parts)
            or len(together) != 1
            or not (all(sizes) and together[0].answers.ndim)
            or len(parts) > _MOST_TOGETHER
        ):
            return none
        (judged,) = together
        flat = [one.to(judged.truth.device).double().reshape(-1) for one in labels]
        orders = [
            order
            for order in permutations(range(len(parts)))
            if torch.equal(torch.cat([flat[n] for n in order]), judged.truth.double().reshape(-1))
        ]
        # Labels that are the same in several orders: what the model was given may tell it.
        given = [one for one in step.given if len(one) == sum(rows)]
        shown = [order for order in orders if any(_are_laid(one, parts, order) for one in given)]
        orders = shown or orders
        order = orders[0] if len(orders) == 1 else self._turn if self._turn in orders else ()
        are_alike = all(size * sum(rows) == n * total for size, n in zip(sizes, rows, strict=True))
        lengths = {len(judged.answers), len(judged.truth)}
        if not order or not (lengths == {total} or (are_alike and lengths <= {total, sum(rows)})):
            return none
        self._turn = order
        found = list(none)
        for part, judged_of_part, own in _cut_out(judged, parts, sizes, rows, order, given):
            is_other = rows_in(own, part.batch).is_other
            found[next(n for n, one in enumerate(parts) if one is part)] = None if is_other else judged_of_part
        return found

    def with_ids(self, part: Part) -> Part:
        """A part with the ids in it, or in what its loader gave where a hook takes them out.

        Raises:
            XaiError: They are not where the caller says.
        """
        recording, before = self._recording, part.before
        try:
            ids = recording.ids_in(part.batch, part.given)
        except Exception:  # the caller's own function may look for them where a hook took them out
            if before is None:
                raise
            ids = None
        if ids is not None:
            return replace(part, ids=ids, found=recording.place_in(part.batch))
        if before is None or (ids := recording.ids_in(before.batch, before.given)) is None:
            return part
        ids, unknown = self._after_hooks(part, before, ids)
        return replace(part, ids=ids, found=recording.place_in(before.batch), unknown=unknown)

    def identified(self, part: Part, step: Step) -> tuple[Part, Any, str | None]:
        """The part, its ids or rows' numbers, None without, and why they are not known where there might be some."""
        recording, ids = self._recording, part.ids
        if part.unknown is not None:
            return part, None, part.unknown
        if ids is not None and (said := self._no_ids(part, step, ids)) is not None:
            recording.tell(said)
            ids, part = None, replace(part, labels=None if said == _LABELS_FIRST else part.labels)
        if ids is not None or (watch := self._loading.of(part.loader)) is None:
            deeper = _deeper(part.batch) if ids is None else ""
            return part, ids, recording.no_ids + deeper if deeper else None
        part = replace(part, found=_BY_NUMBER)
        ids, reason = self._numbered_after_hooks(part, watch)
        if reason is None:
            recording.tell(_ROW_NUMBERS + _deeper(part.batch))
        for line, known_by in watch.collator.seen.notes if watch.collator is not None else ():
            recording.tell(line, known_by)
        return part, ids, reason

    def held(self, part: Part) -> int | None:
        """How many samples a part without ids holds: as its loader's sampler says where these are not first in it."""
        fetched = self._fetched.get(id(part.loader))
        n = 0 if fetched is None or fetched.numbers is None else len(fetched.numbers)
        return n if n and part.listed is None and has_places_first(part.batch, n) else part.rows

    def has_places_first(self, loader: Any, trainer: Any) -> bool | None:
        """Whether a loader's batches have the places of their samples before these; None where nothing tells it."""
        if _has_hooks(trainer):
            return None
        if getattr(loader, "collate_fn", None) is default_collate:
            return False
        watch = self._loading.of(loader)
        return None if watch is None or watch.collator is None else watch.collator.seen.puts_places_first

    def _no_ids(self, part: Part, step: Step, ids: Any) -> str | None:
        """Why the first part of a batch, a whole number a sample, holds no ids; None where nothing contradicts."""
        if self._recording.ids_at is not None or place_of_ids(part.batch) != 0 or not isinstance(ids, torch.Tensor):
            return None
        if id(part.loader) not in self._not_first:
            fetched = self._fetched.get(id(part.loader))
            numbers = None if fetched is None else fetched.numbers
            if any(
                judged.truth.shape == ids.shape and judged.truth.data_ptr() == ids.data_ptr()
                for judged in (*step.judged, *step.watched)
            ):
                self._not_first[id(part.loader)] = _LABELS_FIRST
            elif numbers is not None and len(set(numbers)) == len(ids) > len(set(ids.tolist())):
                self._not_first[id(part.loader)] = _REPEATED_FIRST
        return self._not_first.get(id(part.loader))

    def _numbered_after_hooks(self, part: Part, watch: Watch) -> tuple[Any, str | None]:
        """As `_numbered`, of a batch that a hook of the module's, or its data module's, may have reordered."""
        if part.before is None:
            return self._numbered(part, watch)
        fetched = self._fetched.get(id(part.loader))
        n = 0 if fetched is None or fetched.numbers is None else len(fetched.numbers)
        numbers, reason = self._numbered(_samples_first(part.before, n), watch)
        return (None, reason) if reason is not None else self._after_hooks(part, part.before, numbers)

    def _after_hooks(self, part: Part, before: Part, ids: Any) -> tuple[Any, str | None]:
        """Whose the rows of a batch are that a hook made of another, of which each row's id is known; or why not."""
        before = _samples_first(before, len(ids))
        samples = list(before.given) if before.are_samples else rows_apart(before.given, len(ids))
        order = order_of_same(samples, part.given)
        if order is None and part.rows == len(ids):
            order = rows_in([one for _, one in tensors_of(part.batch)], before.batch)
        elif order is None:
            order = order_in(rows_apart(before.batch, len(ids)), part.batch, part.rows)
        if order.is_other and (assumed := self._assumed.pop(id(part.loader), 0)):
            self._recording.tell(_HOOK_WRONGLY.format(rows=rows_said(assumed)), (_HOOK_WRONGLY, id(part.loader)))
        if order.places:
            return ids_taken(ids, order.places), None
        if order.is_other or part.rows != len(ids) or self._recording.keeps_order is False:
            return None, _HOOK_DISORDER
        if not self._recording.keeps_order:
            self._recording.tell(_HOOK_UNSHOWN)
            self._assumed[id(part.loader)] = self._assumed.get(id(part.loader), 0) + len(ids)
        return ids, None

    def _numbered(self, part: Part, watch: Watch) -> tuple[Any, str | None]:
        """The number in the dataset of each row of a batch, or why that is not known."""
        fetched, collator, keeps_order = self._fetched.get(id(part.loader)), watch.collator, self._recording.keeps_order
        if fetched is None:
            return None, _REMADE
        numbers, order = fetched.numbers, fetched.order
        if numbers is None:
            return None, _NO_NUMBERS
        if collator is None and (part.rows is None or part.rows == len(numbers)):
            return numbers, None
        seen = SeenOrders() if collator is None else collator.seen
        places = seen.places(order or Order(), len(numbers), part.rows, keeps_order=keeps_order)
        if isinstance(places, str):
            return None, _NUMBERLESS[places] if isinstance(places, Unknown) else places
        if any(place is None for place in places):
            self._recording.tell(_SOME_OTHERS)
        return [None if place is None else numbers[place] for place in places], None


def numbered_of(part: Part) -> Any:
    """The dataset whose rows' numbers are a part's ids; None where it has others."""
    return getattr(part.loader, "dataset", None) if part.found == _BY_NUMBER else None


def loaders_of(trainer: Any, mode: Mode) -> tuple[Any, bool]:
    """The loaders of a mode as they were given, and whether they make every batch together."""
    combined = getattr(getattr(trainer, "_active_loop", None), "_combined_loader", None)
    given = {
        Mode.TRAIN: "train_dataloader",
        Mode.EVAL: "val_dataloaders",
        Mode.TEST: "test_dataloaders",
        Mode.INFER: "predict_dataloaders",
    }[mode]
    return getattr(trainer, given, None), getattr(combined, "_mode", "sequential") != "sequential"


def _has_hooks(trainer: Any) -> bool:
    """Whether batches come by something of the caller's between loader and step."""
    holders = (trainer.lightning_module, getattr(trainer, "datamodule", None))
    of = [getattr(getattr(holder, name, None), "__module__", None) or "" for holder in holders for name in _HOOKS]
    return any(module and module.partition(".")[0] not in ("lightning", "pytorch_lightning") for module in of)


def listed(loaders: Any) -> list[tuple[str, Any]]:
    """The loaders with their ds_ids: their names, or their numbers from the second on."""
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return [(str(name), loader) for name, loader in loaders.items()]
    found = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    return [(str(number) if number else "", loader) for number, loader in enumerate(found)]


def _pieces(loaders: Any, together: bool, batch: Any, number: int) -> list[tuple[Any, str, Any]]:
    """What each loader gave of a batch, its ds_id, and the loader; of several that make it together those that did."""
    named = listed(loaders)
    if not together or not isinstance(loaders, (Mapping, list, tuple)):
        return [(batch, *(named[number] if number < len(named) else ("", None)))]
    pieces = list(batch.values()) if isinstance(batch, Mapping) else batch
    if not isinstance(pieces, (list, tuple)) or len(pieces) != len(named):
        return [(batch, "", None)]
    return [(piece, *of) for piece, of in zip(pieces, named, strict=True) if piece is not None]


def by_loader(returned: Any, parts: Sequence[Part]) -> list[torch.Tensor | None]:
    """The answers that a step returned by loader: by the names of these, or in a list as they are in one."""
    found = (
        next((returned[name] for name in NAMED if name in returned), None) if isinstance(returned, Mapping) else None
    )
    own: list[Any] = [None for _ in parts]
    if isinstance(found, Mapping):
        own = [found.get(part.ds_id) for part in parts]
    elif isinstance(found, (list, tuple)):
        numbers = [int(part.ds_id or 0) if (part.ds_id or "0").isdecimal() else len(found) for part in parts]
        own = [found[number] if number < len(found) else None for number in numbers]
    fits = (
        isinstance(one, torch.Tensor) and one.shape[:1] == (part.rows,) for one, part in zip(own, parts, strict=True)
    )
    return [one if is_fit else None for one, is_fit in zip(own, fits, strict=True)]


def line_by_loader(batch: Any, parts: Sequence[Part]) -> str:
    """How a step ends that returns its answers by loader."""
    if isinstance(batch, Mapping):
        named = ", ".join(f"{part.ds_id!r}: logits_{part.ds_id}" for part in parts)
        return f"return {{'loss': loss, 'logits': {{{named}}}}}"
    return f"return {{'loss': loss, 'logits': [{', '.join(f'logits_{n}' for n in range(len(parts)))}]}}"


def _with_own_labels(step: Step, parts: Sequence[Part]) -> list[Judged | None]:
    """Of each loader's part what the criterion was given that got its labels: nothing else tells whose answers.

    Labels that a criterion was handed as they are count before labels that are equal.
    """
    found: list[list[Judged]] = [[] for _ in parts]
    for judged in distinct(step.judged):
        for are_same in (is_same, same):
            of = [
                i
                for i, part in enumerate(parts)
                if isinstance(part.labels, torch.Tensor) and are_same(judged.truth, part.labels)
            ]
            if of:
                break
        if len(of) == 1:
            found[of[0]].append(judged)
    return [judged[0] if len(judged) == 1 else None for judged in found]


def _cut_out(
    judged: Judged,
    parts: Sequence[Part],
    sizes: Sequence[int],
    rows: Sequence[int],
    order: Sequence[int],
    given: Sequence[torch.Tensor],
) -> Iterator[tuple[Part, Judged, list[torch.Tensor]]]:
    """Each part with what a criterion was given of it, and what the model was, where all stand one below the other.

    Args:
        judged: What the criterion was given.
        parts: The parts.
        sizes: How many labels each has.
        rows: How many samples.
        order: In which order they stand.
        given: What the model was given.
    """
    total, place, row = sum(sizes), 0, 0
    for n in order:
        end = place + sizes[n]

        def cut(tensor: torch.Tensor | None, place: int = place, end: int = end) -> Any:
            return None if tensor is None else tensor[len(tensor) * place // total : len(tensor) * end // total]

        truth, labels = cut(judged.truth), parts[n].labels
        truth = labels if truth.shape == labels.shape and truth.dtype == labels.dtype else truth
        own = replace(
            judged,
            answers=cut(judged.answers),
            truth=truth,
            each=cut(judged.each),
            counting=cut(judged.counting),
            picked=(None, None),
        )
        yield parts[n], own, [one[row : row + rows[n]] for one in given]
        place, row = end, row + rows[n]


def _are_laid(given: torch.Tensor, parts: Sequence[Part], order: Sequence[int]) -> bool:
    """Whether a model was given a tensor of each part in this order, one below the other."""
    row = 0
    for n in order:
        rows = parts[n].rows or 0
        own = [one for _, one in tensors_of(parts[n].batch) if one.ndim > 1 and len(one) == rows]
        if which_of(given[row : row + rows], own) is None:
            return False
        row += rows
    return True


def _samples_first(part: Part, n: int) -> Part:
    """A part of so many samples with these before their places."""
    is_turned = n and part.listed is None and has_places_first(part.batch, n)
    return replace(part, batch=with_samples_first(part.batch, n)) if is_turned else part


def ids_taken(ids: Any, places: Sequence[int | None]) -> Any:
    """The ids at these places; None for a row that is of no sample."""
    if ids is None:
        return None
    listed = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    return [None if place is None else listed[place] for place in places]


def _deeper(batch: Any) -> str:
    """Where ids seem to stand deeper in a batch, with what says it."""
    at = nested_ids(batch)
    return "" if at is None else f"; batch{at} is named like ids: say XaiCallback(..., ids=lambda batch: batch{at})"
