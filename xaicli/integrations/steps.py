"""What a step does with the order of its batch: whose each answer is, and which label it was judged by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from xaicli.heads.head import Task, Values
from xaicli.integrations.answers import (
    LEFT_OUT,
    are_bits,
    are_labels,
    are_places,
    are_several_parts,
    batch_first,
    distinct,
    is_mixture,
    is_part_of,
    is_same,
    is_turned_part,
    judged_of,
    labels_as,
    labels_judged,
    outer,
    same,
    tensors_of,
    which_of,
)
from xaicli.integrations.capture import Judged, Step
from xaicli.integrations.collators import rows_said
from xaicli.integrations.columns import Told
from xaicli.integrations.order import Order, rows_in
from xaicli.vocabulary import Mode

_UNSHOWN = (
    "nothing shows in which order {name} gives the model the batch's samples: what it gives is none of what stands in "
    "the batch, and its criterion is not given the batch's own labels"
)
_ASSUMED = (
    "; they are taken to be in the batch's order: say XaiCallback(..., keeps_order=True) that it is so, or "
    "keeps_order=False to leave such rows out"
)
_WRONGLY = (
    "{name} gave its model a batch in another order, after {rows} of batches whose order nothing showed were taken to "
    "be in the batch's: these may stand under the ids of others"
)
_BOTH = (
    "the loss is made of the model's own and of a criterion of the step's that is given other labels than the batch's: "
)
_LESSER = (
    _BOTH + "rows are of the model's own, which weighs no less, with the batch's labels; samples_fn records the other"
)
_GREATER = _BOTH + "rows have the labels of the criterion; samples_fn records the model's own"

DISPUTED = (
    "{name} gives criteria its answers with several labels, or some of them with other labels than the batch has, and "
    "which of them are the samples' is not known: rows have no label and no loss; give one criterion all answers with "
    "their labels, or give samples_fn"
)
_SEVERAL = (
    "{name} gives criteria the same answers with several labels: rows have the batch's own, and the plain loss of "
    "these; samples_fn records others"
)
_SOFT = (
    "{name} gives its criterion soft labels, as of mixup or a teacher: rows have the batch's own label, and the plain "
    "loss of that"
)

COMPARED = (
    "compares the samples of a batch with one another, as a contrastive loss does: its answers are no classes; no "
    "samples of it are recorded"
)

_PLACES_FIRST = (
    "gives its criterion labels of which the first dimension is not the batch's samples, and whose they are is not "
    "known; no samples of it are recorded: let the collate_fn put the samples first, or give samples_fn"
)
_AS_MANY_PLACES = (
    "is given as many places as samples, and no batch before has shown which are first; no samples of it are "
    "recorded: set batch_first=True on the module's recurrent and attention layers where the samples are, or give "
    "samples_fn"
)

_TAKEN_FIRST = (
    "a batch holds as many places as samples, and neither its collate_fn nor a batch before shows which are first: the "
    "samples are taken to be; where the places are, let the collate_fn put the samples first, or give samples_fn"
)
_TAKEN_WRONGLY = (
    "the module is given its places before its samples, after {rows} of batches with as many places as samples, which "
    "were taken to be first: these may have the labels and losses of others"
)

_ROUNDED = 1e-4
"""By how much rounding puts a sum of losses off."""
_LABEL = "the batch's label"
"""Stands for that among the names of its parts."""


class StepOrders:
    """What the steps of a training were seen to do with the order of their batches.

    On a device, where looking waits for it, the first step of each mode tells, and every one after a step that gave its
    model a batch in another order.

    Args:
        tell: Says something once: the words, and what these are known by where they may change.
        keeps_order: Whether the caller says that steps that show nothing keep the order.
    """

    def __init__(self, tell: Callable[[str, Hashable], None], keeps_order: bool | None) -> None:
        self._tell = tell
        self._keeps_order = keeps_order
        self._turned: dict[Mode, bool] = {}
        """Whether the last step of a mode that was looked at gave its model the batch in another order."""
        self._assumed: dict[Mode, int] = {}
        """How many rows of a mode were taken to be in the batch's order where nothing showed it."""
        self._shares: dict[Mode, tuple[bool, bool]] = {}
        """Whether the last target of yes and no that was looked at lay in between, and the batch's own does not."""
        self._part: dict[Mode, int | None] = {}
        """Which of the parts of its answers a step last gave a criterion with the batch's labels, where it was one."""
        self._strays: dict[Mode, str | None] = {}
        """Why what a criterion is given cannot be recorded, by the last comparison of a mode."""
        self._by_value: dict[Mode, bool] = {}
        """Whether in the last step of a mode that was looked at values told of which answers a criterion was given."""
        self._texts: dict[Mode, str | None] = {}
        """The part of a batch without labels that the last step of a mode that was looked at gave a criterion."""
        self._next: dict[Mode, bool] = {}
        """Whether the last comparison of a mode showed that a criterion was given each place the label of the next."""
        self._kept: dict[Mode, bool] = {}
        """Whether the last step of a mode that was looked at showed that it gave its model the batch in its order."""
        self.watched: set[Mode] = set()
        """The modes of which a step was looked at, and understood."""
        self._trained: tuple[frozenset[bool], bool] | None = None
        """Of the last training step that was looked at: whether the criteria that its loss was made of were the
        model's own, and whether they were given the batch's labels."""
        self._disputed: dict[Mode, bool] = {}
        """What `are_disputed` found in the last step of a mode that was looked at."""
        self._compares: dict[tuple[Mode, int], bool] = {}
        """Whether the n-th criterion of a mode's steps compares samples with one another, as the first batch that
        tells it showed."""
        self.is_of_pairs = False
        """Whether the training's last loss was made of nothing but criteria that compare samples."""
        self._are_alone = True
        """Whether the training's loss was made of nothing but criteria that compare samples, when that was known."""
        self._is_own_first: bool | None = None
        """Whether a loss that a model has of its own counts before a criterion of the step's, as its weight said."""
        self._is_turned_batch: bool | None = None
        """Whether the last batch that told it had its samples in the second dimension."""
        self._turned_back: dict[Mode, bool] = {}
        """Whether a step of a mode gave a criterion its batch's labels with the places first."""
        self._taken_first = 0
        """How many rows were taken to be the first dimension of batches with as many places, where nothing shows it."""
        self._targets: list[tuple[Any, frozenset[Any]]] = []
        """What the step's own criteria that the training's loss was made of were given, as far as all steps showed."""
        self._kinds: frozenset[tuple[Any, bool]] = frozenset()
        """These criteria, and whether they gave a loss a place."""
        self.told = Told()
        """What the training's losses told of which places count."""

    def begin(self) -> None:
        """A training begins, which may be of other targets than the one before."""
        self._targets, self._is_own_first, self._are_alone = [], None, True
        self._kinds, self.told = frozenset(), Told()

    def leave_out_compared(self, step: Step, batch: Any, ids: Any, mode: Mode) -> list[Judged]:
        """Leave out the criteria of a step that compare the samples of its batch with one another, as CLIP's do.

        Such a one is given a row and a column a sample, and each sample's own place in the batch, which the step made.

        Args:
            step: What was seen.
            batch: What the step was given.
            ids: The ids in it, which may be numbers from 0 as well.
            mode: The mode.

        Returns:
            Those that were left out.
        """
        given = [part for _, part in tensors_of(batch) if part is not ids]
        found = [one for n, one in enumerate(step.judged) if self._is_compared(one, step, given, (mode, n))]
        step.judged = [one for one in step.judged if not any(one is other for other in found)]
        return found

    def are_compared_alone(self, step: Step, compared: Sequence[Judged], mode: Mode) -> bool:
        """Whether the loss of a step is made of nothing but criteria that compare its samples, as far as is known.

        An evaluation, whose loss has no graph that tells the weights, has the verdict of the training.
        """
        is_beside = any(one.counts is not False for one in step.judged) or bool(step.own_given)
        loss = None if is_beside else step.loss
        if isinstance(loss, torch.Tensor) and (loss.is_cpu or mode not in self.watched):
            parts = [None if o.weight is None or o.loss is None else float(o.weight * o.loss) for o in compared]
            if None not in parts:
                known = sum(part for part in parts if part is not None)
                self._are_alone = abs(float(loss) - known) <= _ROUNDED * max(abs(known), 1.0)
        are_alone = self._are_alone and not is_beside
        self.is_of_pairs = are_alone if mode is Mode.TRAIN else self.is_of_pairs
        return are_alone

    def _is_compared(self, judged: Judged, step: Step, given: Sequence[torch.Tensor], kind: tuple[Mode, int]) -> bool:
        """Whether a criterion, the n-th of a mode's steps, compares samples with one another.

        Targets that the step did not make before our eyes, as numbers from 0 to n - 1 kept somewhere, may be labels
        that it maps and that are these by chance: then more than two samples tell it, of which no label does.
        """
        truth, n = judged.truth, len(judged.truth) if judged.truth.ndim else 0
        of_training = (Mode.TRAIN, kind[1])
        if not n or judged.answers.shape != (n, n) or truth.shape not in ((n,), (n, n)):
            if n > 1 and judged.answers.ndim == 2 and not judged.is_each:
                self._compares.setdefault(kind, False)  # as many classes whatever the batch's size
            return False
        if any(part.data_ptr() == truth.data_ptr() for part in given):
            return False
        if judged.is_of_pairs and n > 1:
            self._compares[kind] = True
        is_made = step.makes_places(truth)
        if not truth.is_cpu and kind[0] in self.watched:
            return is_made or self._compares.get(kind, self._compares.get(of_training, False))
        if not are_places(judged):
            if n > 1:
                self._compares.setdefault(kind, self._compares.get(of_training, False) or _is_of_pairs(judged))
            return self._compares.get(kind, self._compares.get(of_training, False))
        is_told = kind not in self._compares and n > 2 and not any(_may_say(part, truth) for part in given)
        if is_made or is_told:
            self._compares[kind] = True
        return self._compares.get(kind, self._compares.get(of_training, False))

    def samples_first(
        self, step: Step, batch: Any, labels: Any, rows: int | None, module: Any, is_turned: bool | None, mode: Mode
    ) -> tuple[Any, Any, str | None]:
        """A batch whose second dimension is the samples, as recurrent networks take texts, with these first.

        What the criteria of the step were given is turned with it.

        Args:
            step: What was seen.
            batch: What the step was given.
            labels: The labels in it.
            rows: How many samples it holds, as its ids say.
            module: The module: where there are as many places as samples, and no other batch told it, it may.
            is_turned: Whether its collate_fn is known to put the places first; None where it is not known.
            mode: The mode.

        Returns:
            Batch and labels, as they are or turned, and why it is not known whose the labels are.
        """
        if not isinstance(labels, torch.Tensor) or labels.ndim < 2 or not rows or labels.shape[1] != rows:
            if labels_are(labels, rows):
                self._is_turned_batch, self._taken_first = False, 0
                return batch, labels, self._turn_back(step, batch, labels, mode)
            return batch, labels, None
        shape = labels.shape[:2]
        if shape[0] != rows:
            beside = [part for _, part in tensors_of(batch) if part.ndim > 1 and part.data_ptr() != labels.data_ptr()]
            # Of texts and their translations each has as many places as its own longest.
            are_turned = all(part.shape[1] == rows != len(part) for part in beside)
            if not beside or not (are_turned or any(part.shape[:2] == shape for part in beside)):
                return batch, labels, _PLACES_FIRST
            self._is_turned_batch = True
            if self._taken_first:
                self._tell(_TAKEN_WRONGLY.format(rows=rows_said(self._taken_first)), _TAKEN_WRONGLY)
                self._taken_first = 0
        elif is_turned is not None:
            self._is_turned_batch = is_turned
        elif self._is_turned_batch is None and rows > 1:
            if _takes_places_first(module):
                return batch, labels, _AS_MANY_PLACES
            if any(_is_of_places(one, labels) for one in step.judged):
                self._tell(_TAKEN_FIRST, None)
                self._taken_first += rows
        if not self._is_turned_batch:
            return batch, labels, self._turn_back(step, batch, labels, mode)
        found = [batch_first(one, labels) if one.truth.numel() >= labels.numel() - rows else one for one in step.judged]
        if None in found:
            return batch, labels, _PLACES_FIRST
        step.judged = [one for one in found if one is not None]
        return _turned(batch, shape), labels.transpose(0, 1), None

    def labels_of_places(self, step: Step, batch: Any, labels: Any, rows: int | None, module: Any, mode: Mode) -> Any:
        """A batch's labels; of one without, where a criterion is given a class of each place, what these are.

        Those of a language model are its inputs. Of others that the step makes the answers beside them say whose.

        Args:
            step: What was seen.
            batch: What the step was given.
            labels: The labels in it; None without.
            rows: How many samples it holds.
            module: The module.
            mode: The mode.

        Returns:
            These, a part of the batch, or what the criterion was given, a row a sample; None where neither is known.
        """
        given = [one for one in distinct(outer(step.judged, rows)) if one.counts is not False]
        if labels is not None:
            return labels
        if len(given) != 1 or not rows or not _is_of_classes(one := given[0]) or one.truth.numel() <= rows:
            return None
        texts = [(str(name), part) for name, part in tensors_of(batch) if part.ndim == 2]
        texts = [(name, part) for name, part in texts if not (part.is_floating_point() or part.is_complex())]
        if one.truth.is_cpu or mode not in self.watched:
            found = [name for name, part in texts if _is_of_texts(one.truth, part)]
            self._texts[mode] = next(iter(found), None)
        if (own := next((part for name, part in texts if name == self._texts.get(mode)), None)) is not None:
            return own
        if one.truth.ndim > 1 or one.answers.ndim != 2:
            return None
        for answered in (part for parts in step.answered for part in parts if part.ndim == 3 and len(part) == rows):
            is_known = answered.shape[1] != rows or not _takes_places_first(module)
            if is_known and one.truth.numel() % rows == 0 and self.judged_of(answered, [one], None, mode):
                return one.truth.reshape(rows, -1)
        return None

    def _turn_back(self, step: Step, batch: Any, labels: torch.Tensor, mode: Mode) -> str | None:
        """Put the samples first in what a step turned of a batch that has them first, as for a recurrent network.

        Returns:
            Why it is not known whose the labels are; None where it is.
        """
        turned, kept = labels.transpose(0, 1), list(step.judged)
        for place, one in enumerate(kept):
            is_of_places = labels.ndim > 2 or _is_of_places(one, labels)
            if min(turned.shape[:2]) < 2 or not is_of_places or one.picked != (None, None):
                continue
            if not (one.truth.is_cpu or mode not in self.watched or self._turned_back.get(mode)):
                continue
            own = which_of(one.truth, [turned, turned[1:]], is_shaped=True)
            if own is None:
                continue
            if which_of(one.truth, [labels, labels[:, 1:]], is_shaped=True) is not None:
                # The same either way, as labels that are all alike: what the model was given tells it, if anything.
                if not is_of_batch(one.truth, labels) and any(is_turned_part(given, batch) for given in step.given):
                    return _PLACES_FIRST
                continue
            found = batch_first(one, turned)
            if found is None:
                return _PLACES_FIRST
            is_whole = own.shape == turned.shape and one.truth.dtype == labels.dtype
            kept[place] = replace(found, truth=labels) if is_whole else found
            self._turned_back[mode] = True
        step.judged = kept
        return None

    @property
    def is_trained_on_batch(self) -> bool:
        """Whether, as far as is known, the training's criterion was given the batch's own labels."""
        return self._trained is None or self._trained[1]

    def leave_out_watched(self, step: Step, labels: Any, mode: Mode, batch: Any = None) -> bool:
        """Leave out the criteria of a step that are no part of its loss, but watched.

        Where an evaluation does not tell it, as one that returns no loss, what the training's loss was made of does.

        Args:
            step: What was seen.
            labels: The batch's labels.
            mode: The mode.
            batch: What the step was given, by whose parts targets are told; None where these are not looked at.

        Returns:
            Whether it is not known which labels count: then no criterion of other labels than the batch's does.
        """
        kept = self._without_lesser(step, [one for one in step.judged if one.counts is not False], labels, mode)
        step.watched = [one for one in step.judged if not any(one is other for other in kept)]
        if not kept:  # a loss of no criterion: one that is given the batch's own labels still shows the answers
            kept = [one for one in step.watched if not _are_others(one, labels)]
        is_looked_at = mode not in self.watched or all(one.truth.is_cpu for one in kept)
        if mode is Mode.TRAIN and is_looked_at and all(one.counts is not None for one in step.judged):
            outer = [one for one in kept if one.counts and not one.is_inner]
            are_batch = not any(_are_others(one, labels) for one in outer)
            if batch is not None:
                mixed = any(map(is_mixture, outer))
                self._note_targets([] if mixed else [_target(one, labels, batch) for one in outer])
                are_batch = are_batch and all(_LABEL in parts for _, parts in self._targets)
            self._trained = frozenset(one.is_inner for one in kept if one.counts), are_batch
            self._kinds = frozenset((one.by, one.is_weighed) for one in outer)
        unknown = [one for one in kept if one.counts is None and not one.is_inner]
        if mode not in (Mode.TRAIN, Mode.INFER):
            kept, unknown = (self._as_weighed(part, unknown) for part in (kept, unknown))
        if mode in (Mode.TRAIN, Mode.INFER) or not unknown or (self._trained is None and step.loss is None):
            step.judged = kept
            return False
        kinds, are_batch = self._trained or (None, True)
        if kinds is not None and not are_batch:
            step.judged = self._as_trained(kept, unknown, labels, batch)
            return not step.judged
        others = [one for one in unknown if _are_others(one, labels)]
        step.judged = [one for one in kept if not any(one is other for other in others)]
        step.watched += others
        return bool(others) and kinds != frozenset() and not step.judged

    def _as_weighed(self, kept: list[Judged], unknown: list[Judged]) -> list[Judged]:
        """The criteria of an evaluation without those that are the training's but for giving a loss a place, or none,
        of what such a one was given as well.
        """
        alike = [one for one in unknown if (one.by, one.is_weighed) in self._kinds]
        others = [one for one in unknown if not any(one is own for own in alike)]
        watched = [
            one
            for one in others
            if any(is_same(one.answers, own.answers) and _is_same_truth(one.truth, own.truth) for own in alike)
        ]
        return [one for one in kept if not any(one is other for other in watched)]

    def _without_lesser(self, step: Step, kept: list[Judged], labels: Any, mode: Mode) -> list[Judged]:
        """The criteria that a loss is made of, without the step's own that say other labels than a heavier one of the
        model's own.

        An evaluation, whose loss has no graph that tells the weights, has the order of the training; one that stands
        alone is of the step's criterion.
        """
        inner = [one for one in kept if one.is_inner and one.counts]
        others = [one for one in kept if not one.is_inner and one.counts]
        others = [one for one in others if not inner or any(_are_same_answers(one, own) for own in inner)]
        is_given_labels = isinstance(labels, torch.Tensor) and labels.data_ptr() in step.own_given
        if not others or not (inner or is_given_labels):
            return kept
        is_looked_at = mode not in self.watched or all(one.truth.is_cpu for one in others)
        if not is_looked_at:
            lesser = others if self._is_own_first else []
        elif not any(_are_others(one, labels) for one in others):
            lesser = []
        else:
            weights = [one.weight for one in inner] if inner else [step.own_weight]
            own = max((float(weight) for weight in weights if weight is not None), default=None)
            heaviest = max((float(one.weight) for one in others if one.weight is not None), default=None)
            if own is not None and heaviest is not None:
                self._is_own_first = own >= heaviest
            lesser = others if self._is_own_first else []
            if (own and heaviest) or self._is_own_first is None:
                self._tell(_LESSER if lesser else _GREATER, None)
            self._is_own_first = bool(lesser)
        return [one for one in kept if not any(one is other for other in lesser)]

    def are_disputed(self, step: Step, answers: Any, labels: Any, mode: Mode, name: str) -> bool:
        """Whether the step's own criteria were given these answers with several labels, none of which is the batch's.

        Where one of them is the batch's, it counts, and that is said.

        Args:
            step: What was seen.
            answers: The model's, or what a criterion was given.
            labels: The batch's labels.
            mode: The mode.
            name: The step, in words.
        """
        answers = answers.answers if isinstance(answers, Judged) else answers
        if not isinstance(answers, torch.Tensor):
            return False
        if mode not in self.watched or all(one.truth.is_cpu for one in step.judged):
            of = [one for one in step.judged if not one.is_inner and is_same(one.answers, answers)]
            truths = _truths(of)
            own = isinstance(labels, torch.Tensor) and any(are_labels(truth, labels) for truth in truths)
            self._disputed[mode] = len(truths) > 1 and not own
            if len(truths) > 1:
                self._tell((_SEVERAL if own else DISPUTED).format(name=name), None)
        return self._disputed.get(mode, False)

    def say_soft(self, judged: Judged, labels: Any, mode: Mode, name: str) -> None:
        """Say where a criterion of classes was given parts of them and the batch has others, which then count."""
        if judged.is_each or not (judged.truth.is_cpu or mode not in self.watched) or not is_mixture(judged):
            return
        if labels is None or not _are_others(judged, labels):
            return
        if labels_as(Task.CLASSIFICATION, judged.truth, judged.answers[:1].numel()) is None:
            self._tell(_SOFT.format(name=name), None)

    def with_own_label(self, judged: Judged, labels: Any, mode: Mode, name: str) -> Judged:
        """What a criterion of yes and no was given; where that is something in between, beside the batch's own label.

        Which is said, where the batch has one.
        """
        if not judged.is_each or not judged.truth.is_floating_point():
            return judged
        truth, own = judged.truth, labels if isinstance(labels, torch.Tensor) else None
        own = own if own is not None and own.numel() == truth.numel() and own.device == truth.device else None
        if truth.is_cpu or mode not in self.watched:
            self._shares[mode] = is_mixture(judged), own is not None and are_bits(own)
        is_mixed, has_own = self._shares[mode]
        if not (is_mixed and has_own) or own is None:
            return judged
        self._tell(_SOFT.format(name=name), None)
        return replace(judged, truth=own.reshape(truth.shape).to(truth.dtype))

    def part_of(
        self, answers: torch.Tensor, step: Step, labels: Any, rows: int, mode: Mode, *, is_alone: bool
    ) -> list[Judged]:
        """What a step's criterion was given where that was a part of the answers that it returned; several where these
        are several, of which not one alone has the batch's labels.

        Args:
            answers: These.
            step: What was seen.
            labels: The batch's labels.
            rows: How many samples it holds.
            mode: The mode.
            is_alone: Whether no criterion was given all of the answers: then what a model's own was given counts, too,
                and what was made of the answers otherwise.
        """
        given = [one for one in distinct(step.judged) if one.counts is not False]
        given = [one for one in given if one.truth.shape[:1] == one.answers.shape[:1] == (rows,)]
        # That of the step's own before that of the model's, which is then taken as it is.
        outer = [one for one in given if not one.is_inner and one.answers.numel() != answers.numel()]
        inner = [replace(one, is_inner=False) for one in given if one.answers.numel() != answers.numel()]
        inner = inner if is_alone and labels is not None else []
        own = [one for one in outer or inner if is_part_of(one.answers, answers)]
        if is_alone and not own and len(given) == len(outer or inner) == 1 and labels_fit(given[0], labels):
            return outer or inner  # made of what was returned: words of a text, classes of an embedding
        if len(own) < 2:
            return own
        if own[0].truth.is_cpu or mode not in self.watched:
            is_one = isinstance(labels, torch.Tensor) and labels.ndim == 1
            alike = [is_one or (labels is not None and one.truth.shape == labels.shape) for one in own]
            of = [n for n, one in enumerate(own) if alike[n] and not _are_others(one, labels)]
            self._part[mode] = of[0] if len(of) == 1 else None
        if (number := self._part.get(mode)) is not None and number < len(own):
            return [own[number]]
        return own if are_several_parts(own, answers, labels) else []

    def are_shares(self, judged: Judged, mode: Mode) -> bool:
        """Whether the last target of yes and no of a mode is something in between, and its samples have no other."""
        return judged.is_each and self._shares.get(mode, (False, False)) == (True, False)

    def _note_targets(self, targets: list[tuple[Any, frozenset[Any]]]) -> None:
        """Remember what the training's criteria were given: equal to a part of every batch, not of some by chance."""
        if [by for by, _ in targets] == [by for by, _ in self._targets]:
            targets = [(by, parts & had) for (by, parts), (_, had) in zip(targets, self._targets, strict=True)]
        self._targets = targets

    def _as_trained(self, kept: list[Judged], unknown: list[Judged], labels: Any, batch: Any) -> list[Judged]:
        """The criteria of an evaluation that were given what those of the training were; none where that is not known.

        A part of the batch is known again. Of what a step makes of its batch, it is the only target of the same
        criterion that is no part of it, or else the only one.
        """
        if batch is None or len(self._targets) != 1 or any(map(is_mixture, unknown)) or len(_truths(unknown)) < 2:
            return kept
        ((by, parts),) = self._targets
        found = [(one, *_target(one, labels, batch)) for one in unknown]
        if parts:
            alike = [one for one, _, own in found if own & parts]
        else:
            made = [(one, of) for one, of, own in found if not own]
            alike = [one for one, of in made if of is by] or [one for one, _ in made]
        if len(_truths(alike)) != 1:
            return []
        others = [one for one in unknown if not any(one is other for other in alike)]
        return [one for one in kept if not any(one is other for other in others)]

    def order_of(
        self, step: Step, batch: Any, rows: int, mode: Mode, name: str, *, is_asked_for: bool = False
    ) -> tuple[Order | None, str | None]:
        """The other order in which a step gave its batch to its model, None of its own; or why its rows are left out.

        What the step gave its model says it. It need not be asked of answers that were judged by the batch's own
        labels (`is_of_batch`).

        Args:
            step: What was seen.
            batch: What the step was given.
            rows: How many samples it holds.
            mode: The mode.
            name: The step, in words.
            is_asked_for: Whether the answers are asked for in the batch's order, so that nothing need show it.
        """
        if rows < 2 or not any(len(one) == rows for one in step.given):
            return None, None
        if not self._looks(mode, all(one.is_cpu for one in step.given)):
            return None, None
        given = [one for one in step.given if not is_turned_part(one, batch)]
        if not any(len(one) == rows for one in given):
            self._kept[mode] = False
            return None, None
        order = rows_in(given, batch)
        self._turned[mode] = order.is_other
        self._kept[mode] = bool(order.places) and not order.is_other
        if order.is_other:
            if assumed := self._assumed.pop(mode, 0):
                self._tell(_WRONGLY.format(name=name, rows=rows_said(assumed)), (_WRONGLY, mode))
            return order, None
        if order.places or self._keeps_order or is_asked_for:
            return None, None
        unshown = _UNSHOWN.format(name=name)
        if self._keeps_order is False:
            return None, f"{unshown}, and keeps_order=False leaves such rows out"
        self._tell(unshown + _ASSUMED, (_ASSUMED, name))
        self._assumed[mode] = self._assumed.get(mode, 0) + rows
        return None, None

    def order_of_returned(self, returned: torch.Tensor, answered: Sequence[torch.Tensor], mode: Mode) -> Order | None:
        """The other order in which a step returned what its model answered; None where nothing tells one."""
        if any(is_same(returned, one) for one in answered) or not self._looks(mode, returned.is_cpu):
            return None
        order = rows_in([returned], {str(number): one for number, one in enumerate(answered)})
        self._turned[mode] = self._turned.get(mode, False) or order.is_other
        return order if order.is_other else None

    def judged_of(self, output: Any, judged: Sequence[Judged], labels: Any, mode: Mode) -> list[Judged]:
        """What the criteria were given where that were the answers that a step returned: see `answers.judged_of`.

        Compared by value on a device in the first step of a mode, and in the others where that told it.
        """
        if output is None or not judged:
            return []
        found = judged_of(output, judged, labels, by_value=False)
        is_here = all(one.answers.is_cpu for one in judged)
        is_told = any(not one.is_inner for one in found) or (bool(found) and all(one.is_inner for one in judged))
        if not is_told and (is_here or mode not in self.watched or self._by_value.get(mode, False)):
            found = judged_of(output, judged, labels, by_value=True)
            self._by_value[mode] = bool(found)
        return found

    def is_next(self, truth: Any, labels: Any, mode: Mode) -> bool:
        """Whether a criterion was given each place of a text the label of the next: compared as `labels_of` does."""
        if not (
            isinstance(truth, torch.Tensor) and isinstance(labels, torch.Tensor) and truth.ndim == labels.ndim == 2
        ):
            return False
        if truth.shape[1] != labels.shape[1] and truth.shape[1] + 1 != labels.shape[1]:
            return False
        if truth.is_cpu or mode not in self.watched:
            rest = labels.shape[1] - 1
            here, inside = labels.to(truth.device), truth != LEFT_OUT
            is_same = truth.shape == labels.shape and bool((truth == here)[inside].all())
            is_next = bool((truth[:, :rest] == here[:, 1:])[inside[:, :rest]].all())
            self._next[mode] = rest > 0 and not is_same and is_next
        return self._next.get(mode, False)

    def is_kept(self, mode: Mode) -> bool:
        """Whether a step of a mode that was looked at last showed that it gave its model the batch in its order."""
        return self._kept.get(mode, False)

    def _looks(self, mode: Mode, is_here: bool) -> bool:
        return is_here or mode not in self.watched or self._turned.get(mode, False)

    def labels_of(
        self, judged: Judged, labels: Any, mode: Mode, *, is_in_order: bool = False
    ) -> tuple[Any, str | None]:
        """As `labels_judged`; on a device, where comparing waits for it, compared in the first step of a mode alone."""
        if judged.truth.is_cpu or mode not in self.watched:
            found = labels_judged(judged, labels, is_in_order=is_in_order)
            self._strays[mode] = found[1]
            return found
        if self._strays.get(mode) is not None:
            return labels, self._strays[mode]
        is_mixed = judged.truth.is_floating_point() and not judged.is_each
        return (labels if is_mixed else None), None


def labels_fit(judged: Judged, labels: Any) -> bool:
    """Whether a batch's labels, where it has some, are as many as a criterion of whole samples was given."""
    is_as_many = labels is None or (isinstance(labels, torch.Tensor) and labels.numel() == judged.truth.numel())
    return is_as_many and judged.answers.ndim < 3


def labels_are(labels: Any, rows: int | None) -> bool:
    """Whether labels of places show that the samples are the first dimension."""
    return isinstance(labels, torch.Tensor) and labels.ndim > 1 and labels.shape[0] == rows != labels.shape[1]


def _is_of_places(judged: Judged, labels: torch.Tensor) -> bool:
    """Whether a criterion was given a class a place of labels: these are no sets, and no several numbers a sample."""
    return _is_of_classes(judged) and judged.truth.numel() >= labels.numel() - len(labels)


def _is_of_classes(judged: Judged) -> bool:
    """Whether a criterion was given classes as whole numbers."""
    return not (judged.is_each or judged.values is Values.VALUE or judged.truth.is_floating_point())


def _is_of_texts(truth: torch.Tensor, texts: torch.Tensor) -> bool:
    """Whether the labels of places that count are those of texts, or of their next places, whatever stands first."""
    following = torch.cat([texts[:, 1:], texts.new_full((len(texts), 1), LEFT_OUT)], 1)
    inside, given = truth.reshape(-1) != LEFT_OUT, truth.reshape(-1)
    layouts = [own.reshape(-1) for own in (texts, texts[:, 1:], following, texts[1:]) if own.numel() == len(given)]
    return any(bool(((given == own) | ~inside).all() and inside.any()) for own in layouts)


def _takes_places_first(module: Any) -> bool:
    """Whether a part of a module takes its samples in the second dimension, as torch's own do unless told otherwise."""
    return any(getattr(part, "batch_first", True) is False for part in module.modules())


def _turned(batch: Any, shape: Sequence[int]) -> Any:
    """A batch with the first two dimensions of its parts turned that have these lengths."""
    if isinstance(batch, torch.Tensor):
        return batch.transpose(0, 1) if batch.shape[:2] == shape else batch
    if isinstance(batch, Mapping):
        return {name: _turned(part, shape) for name, part in batch.items()}
    return [_turned(part, shape) for part in batch] if type(batch) in (list, tuple) else batch


def _is_of_pairs(judged: Judged) -> bool:
    """Whether targets look like what any two samples have in common, where what made the answers was not watched."""
    truth, n = judged.truth, len(judged.truth)
    if judged.is_of_pairs is not None or n < 3 or truth.shape != (n, n):
        return False
    return torch.equal(truth, truth.T) and bool((truth.diagonal() == truth.amax(1)).all())


def _may_say(part: torch.Tensor, truth: torch.Tensor) -> bool:
    """Whether a part of a batch may be the labels of which a step made these targets, each another one."""
    if part.shape == truth.shape and part.device == truth.device and torch.equal(part.double(), truth.double()):
        return True
    is_whole = not (part.is_floating_point() or part.is_complex())
    return is_whole and part.shape == truth.shape[:1] and len(set(part.tolist())) == len(part)


def _target(judged: Judged, labels: Any, batch: Any) -> tuple[Any, frozenset[Any]]:
    """Which criterion it is, and the names of the parts of a batch that it was given as its target."""
    truth = judged.truth
    parts = [(name, part) for name, part in tensors_of(batch) if part.numel() == truth.numel()]
    if truth.is_floating_point():
        parts = [(name, part.to(truth.dtype)) for name, part in parts]
    found = frozenset(name for name, part in parts if are_labels(truth, part))
    return judged.by, found if _are_others(judged, labels) else found | {_LABEL}


def _truths(judged: Sequence[Judged]) -> list[torch.Tensor]:
    """The targets that criteria were given, each once."""
    found: list[torch.Tensor] = []
    for one in judged:
        if not any(are_labels(one.truth, truth) for truth in found):
            found.append(one.truth)
    return found


def _are_same_answers(a: Judged, b: Judged) -> bool:
    """Whether two criteria were given the same answers, or one a part of them."""
    return a.answers.untyped_storage().data_ptr() == b.answers.untyped_storage().data_ptr()


def _is_same_truth(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether these are one target, made twice where that needs no look at a device."""
    return is_same(a, b) or (a.is_cpu and same(a, b))


def _are_others(judged: Judged, labels: Any) -> bool:
    """Whether a criterion was given other labels than the batch's."""
    return not isinstance(labels, torch.Tensor) or not are_labels(judged.truth, labels)


def is_of_batch(truth: torch.Tensor | None, labels: Any) -> bool:
    """Whether a criterion was handed the batch's own labels: then the answers beside them are in its order."""
    return truth is not None and isinstance(labels, torch.Tensor) and truth.data_ptr() == labels.data_ptr()
