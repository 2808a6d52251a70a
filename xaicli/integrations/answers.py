"""The answers of a step, and the labels they were judged by, among all that was seen while it ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from xaicli.errors import XaiError
from xaicli.heads.head import Head, Task, Values
from xaicli.heads.outputs import items_of, tensor_at, where_of
from xaicli.integrations.capture import Judged, Step
from xaicli.integrations.order import kinds_of
from xaicli.vocabulary import Mode

LEFT_OUT = -100
"""The label of what does not count."""
_MOST_COMPARED = 2**22
"""So many pairs of numbers are compared to tell what columns of an output a criterion was given."""
_OTHER_LABELS = (
    "gives its criterion other labels than the batch's, as many of each, and whether these are the same in another "
    "order, and its answers with them, is not known"
)


def answers_of(step: Step, labels: Any, mode: Mode, rows: int | None) -> Any:
    """The model's answers in a step: what it returned, what a criterion was given; None where they cannot be told."""
    if step.named is not None:
        return step.named
    if mode is Mode.INFER and step.returned is not None:
        return step.returned if is_one(step.returned) else None
    judged = distinct(outer([one for one in step.judged if rows is None or _fits(one, labels, rows)], rows))
    if len(judged) > 1:
        judged = [one for one in judged if not is_of_unknown_places(one, labels)] or judged
    output, of = step.forwards[0].output if len(step.forwards) == 1 else None, judged
    if len(judged) > 1:
        # An auxiliary loss beside: the criterion that was given the batch's labels is meant, and the module's output.
        judged = [one for one in judged if isinstance(labels, torch.Tensor) and same(one.truth, labels)]
        if len(judged) > 1 and len(step.forwards) == 1 and not are_several_parts(judged, output, labels):
            judged = [one for one in judged if is_output(one.answers, output)]
    if len(judged) == 1:
        return judged[0]
    if len(step.forwards) != 1 or not is_one(output) or are_several_parts(of, output, labels):
        return None
    if of_some_places(step, labels, output):
        return None
    # More rows than samples, as of several views of each: which of them is the sample's cannot be told.
    is_other = isinstance(output, torch.Tensor) and rows is not None and output.shape[:1] != (rows,)
    return None if is_other else output


def judged_of(output: Any, judged: Sequence[Judged], labels: Any, *, by_value: bool) -> list[Judged]:
    """What the criteria of a step were given where that were the answers it returned: labels and task are its.

    None of it where no criterion saw these answers, or the batch's labels are those of the samples that one was given;
    several where they disagree. A criterion may be given the answers in parts, in another order, or as logits of the
    probabilities that are returned: that is told by values, without which what is the same in memory counts alone.
    """
    try:
        returned = tensor_at(output, where_of(output)[0]).detach()
    except XaiError:
        return []
    whole = distinct(outer([one for one in judged if _is_of(returned, one, by_value)], are_same=True))
    if len(whole) < 2:
        return whole or (_in_parts(returned, distinct(judged), labels) if by_value else [])
    if isinstance(labels, torch.Tensor) and (
        own := [one for one in whole if which_of(one.truth, [labels]) is not None]
    ):
        return own[:1]
    classes = [one for one in whole if not one.truth.is_floating_point()]
    return classes if len(classes) == 1 else whole


def are_labels(truth: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether a criterion was given a batch's labels: as they are, as rows of zeros and a one, or of texts each place
    the label of the next.
    """
    if which_of(truth, [labels]) is not None:
        return True
    if labels.ndim == 1 and truth.ndim == 2 and len(truth) == len(labels) and not labels.is_floating_point():
        classes = labels_as(Task.CLASSIFICATION, truth, truth.shape[1])
        return classes is not None and which_of(classes, [labels]) is not None
    if labels.ndim != 2 or truth.is_floating_point():
        return False
    following = torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), LEFT_OUT)], 1)
    return which_of(truth, (labels[:, 1:], following)) is not None


def which_of(given: torch.Tensor, layouts: Iterable[Any], *, is_shaped: bool = False) -> torch.Tensor | None:
    """The first of some layouts of a batch's tensors that these are: the same numbers in the same order; None of none.

    What is no number stands at the same places. The same memory tells it without a look at the values.

    Args:
        given: What a criterion was given, or what a mask picked of.
        layouts: Tensors of the batch, as they are or otherwise laid out; what is no tensor is none.
        is_shaped: Whether only the same shape counts, or all one below the other, else any shape.
    """
    for own in layouts:
        if not isinstance(own, torch.Tensor) or own.numel() != given.numel() or own.device != given.device:
            continue
        if is_shaped and given.ndim >= own.ndim and given.shape != own.shape:
            continue
        if own.data_ptr() == given.data_ptr() and own.dtype == given.dtype:
            is_laid_alike = own.shape == given.shape and own.stride() == given.stride()
            if is_laid_alike or (own.is_contiguous() and given.is_contiguous()):
                return own
        a, b = given.reshape(-1).double(), own.reshape(-1).double()
        if bool(((a == b) | (a.isnan() & b.isnan())).all()):
            return own
    return None


def _is_of(returned: torch.Tensor, judged: Judged, by_value: bool) -> bool:
    """Whether a criterion was given what a step returned, in another form, too: the places of texts, probabilities."""
    answers = judged.answers
    forms = [returned]
    if returned.ndim > 2:
        # Classes behind or before the places; of texts that are asked for the next token, all places but the last.
        forms += [returned.movedim(1, -1), returned.movedim(-1, 1)]
        forms += [form[..., :-1] for form in forms] + [returned[:, :-1]]
    forms = [form for form in forms if form.numel() == answers.numel() > 0]
    if any(form.data_ptr() == answers.data_ptr() for form in forms):
        return True
    if not by_value:
        return False
    answers = answers.to(returned.device)
    if any(torch.equal(form.reshape(-1), answers.reshape(-1).to(form.dtype)) for form in forms):
        return True
    if judged.values is Values.VALUE:
        return False
    answers = answers.float()
    flats = [form.reshape(answers.shape).float() for form in forms]
    axis = min(1, answers.ndim - 1)
    is_each = judged.is_each or answers.ndim < 2
    if judged.values is Values.LOGITS:
        made = [answers.sigmoid()] if is_each else [answers.softmax(axis), answers.log_softmax(axis)]
        return any(_are_close(flat, one) for flat in flats for one in made)
    if judged.values is Values.PROBABILITIES:
        return any(_are_close(flat.sigmoid(), answers) for flat in flats)
    return any(_are_close(one, answers) for flat in flats for one in (flat.log(), flat.log_softmax(axis)))


def _are_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _in_parts(returned: torch.Tensor, judged: Sequence[Judged], labels: Any) -> list[Judged]:
    """As `judged_of`, of criteria that were given some rows of what a step returned each, or all in another order."""
    n = len(returned) if returned.ndim else 0
    rows = returned.reshape(n, -1).cpu() if n else returned
    parts: list[Judged] = []
    fitting: list[list[list[int]]] = []
    for one in judged:
        m = len(one.answers) if one.answers.ndim else 0
        if not m or not n or len(one.truth) != m or one.answers.numel() * n != rows.numel() * m:
            continue
        kinds = kinds_of(torch.cat([rows, one.answers.reshape(m, -1).cpu().to(rows.dtype)]))
        at: dict[int, list[int]] = {}
        for place, kind in enumerate(kinds[:n]):
            at.setdefault(kind, []).append(place)
        if all(kind in at for kind in kinds[n:]):
            parts.append(one)
            fitting.append([at[kind] for kind in kinds[n:]])
    if not parts:
        return []
    first = parts[0]
    alike = (first.values, first.is_each, first.ignored, first.truth.dtype, first.truth.shape[1:])
    if any((o.values, o.is_each, o.ignored, o.truth.dtype, o.truth.shape[1:]) != alike for o in parts):
        return parts
    given = torch.cat([one.truth.cpu() for one in parts])
    each = [places for part in fitting for places in part]
    if len(each) == n and all(place in places for place, places in enumerate(each)):
        return [replace(first, answers=returned, truth=given.to(first.truth.device))]
    truths: dict[int, torch.Tensor] = {}
    for label, places in zip(given, each, strict=True):
        for place in places:
            if not torch.equal(truths.setdefault(place, label), label):
                return [first, first]  # the same answers judged by several labels
    own = labels.cpu().double() if isinstance(labels, torch.Tensor) and labels.shape[:1] == (n,) else None
    if len(truths) < n and own is not None and all(torch.equal(own[p], label.double()) for p, label in truths.items()):
        return []
    if len(truths) < n and (first.ignored is None or given.is_floating_point()):
        return [first, first]
    void = given.new_full(given.shape[1:], LEFT_OUT if first.ignored is None else first.ignored)
    truth = torch.stack([truths.get(place, void) for place in range(n)])
    return [replace(first, answers=returned, truth=truth.to(first.truth.device))]


def at_all_places(judged: Judged, labels: Any, batch: Any) -> Judged:
    """What a criterion would be given of all places, where a mask picked those that it was given: the others do not
    count. As it is where nothing was picked, or not known of what.
    """
    answers, truth = judged.picked
    if answers is None or truth is None or judged.counting is not None:
        return judged
    if answers.source is None or answers.mask is None or truth.source is None or truth.mask is None:
        return judged
    parts = [labels, *(part for _, part in tensors_of(batch))]
    parts = [part for part in parts if isinstance(part, torch.Tensor) and part.ndim > 1]
    own = which_of(truth.source, [*parts, *(part[:, 1:] for part in parts if part.ndim == 2)])
    mask, size = truth.mask.reshape(-1), answers.source.numel()
    if own is None or not mask.numel() or size % mask.numel() or not torch.equal(mask, answers.mask.reshape(-1)):
        return judged
    # Of pictures each pixel is a place, of texts with several numbers a place these are none.
    depth = next((n for n in range(2, own.ndim + 1) if own.shape[:n].numel() == mask.numel()), None)
    if depth is None:
        return judged
    mask = mask.reshape(own.shape[:depth])
    values = answers.source.reshape(*mask.shape, -1).to(judged.answers.dtype)
    given = truth.source.reshape(*mask.shape, -1).to(judged.truth.dtype)
    picked = (values[mask], judged.answers), (given[mask], judged.truth)
    if any(which_of(seen, [known]) is None for known, seen in picked):
        return judged
    is_of_classes = not judged.is_each and judged.values is not Values.VALUE
    if given.shape[-1] != (1 if is_of_classes else values.shape[-1]) or (is_of_classes and given.is_floating_point()):
        return judged
    each = None
    if judged.each is not None:
        each = judged.each.new_zeros(given.shape)
        each[mask] = judged.each.reshape(len(judged.answers), -1)
    if is_of_classes:
        left_out = LEFT_OUT if judged.ignored is None else judged.ignored
        found = given[..., 0].masked_fill(~mask, left_out)
        return replace(judged, answers=values.movedim(-1, 1), truth=found, each=each, picked=(None, None))
    counting = mask[..., None].expand(given.shape).flatten(1)
    values, given, each = values.flatten(1), given.flatten(1), None if each is None else each.flatten(1)
    return replace(judged, answers=values, truth=given, each=each, counting=counting, picked=(None, None))


def is_of_unknown_places(judged: Judged, labels: Any) -> bool:
    """Whether a mask picked what a criterion was given, and neither the mask nor the labels say whose places these are.

    As many places as samples are no samples.
    """
    answers, truth = judged.picked
    if answers is None and truth is None:
        return False
    own = labels if isinstance(labels, torch.Tensor) else None
    if which_of(judged.truth, [own]) is not None:
        return False
    masks = [None if one is None else one.mask for one in judged.picked]
    if own is not None and all(mask is not None and mask.shape == own.shape[:1] for mask in masks):
        return False  # whole samples were picked: as many as there are only where all were
    return truth is not None or own is None or own.shape != judged.truth.shape


def labels_judged(judged: Judged, labels: Any, *, is_in_order: bool = False) -> tuple[Any, str | None]:
    """The labels to record beside what a criterion was given, or why there are none.

    What a criterion was given counts: labels may be mapped, or changed. The batch's own count beside a mixture of
    classes. Where as many of each label came, at other places, the answers may have, too, and whose they are cannot be
    told; unless the answers are known to be in the batch's order (`is_in_order`): then the labels are others.
    """
    truth = judged.truth
    if labels is None or not isinstance(labels, torch.Tensor):
        return labels, None
    if (truth.is_floating_point() and not judged.is_each and judged.values is not Values.VALUE) or (
        labels.numel() != truth.numel()
    ):
        return labels, None
    if _is_turned(truth, labels):
        return labels, _OTHER_LABELS
    if labels.device != truth.device or which_of(truth, [labels]) is not None:
        return labels, None
    if not is_in_order and are_reordered(truth, labels):
        return labels, _OTHER_LABELS
    return None, None


def _is_turned(truth: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether a criterion was given the batch's labels with rows for columns."""
    if truth.ndim != 2 or labels.ndim != 2 or truth.data_ptr() != labels.data_ptr():
        return False
    is_other = truth.shape == labels.T.shape and truth.stride() == labels.T.stride() != labels.stride()
    return is_other and min(labels.shape) > 1


def are_reordered(truth: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether these are the labels of a batch in another order of its samples; within a sample places may move."""
    own, given = labels.reshape(len(labels), -1).double(), truth.reshape(len(labels), -1).double()
    if own.shape[1] > 1:
        own, given = own.sort(1).values, given.sort(1).values
    if torch.equal(own, given):
        return False
    return torch.equal(own.flatten().sort().values, given.flatten().sort().values)


def are_places(judged: Judged) -> bool:
    """Whether the truth is each sample's own place in the batch, as a number or as a row of zeros and a one."""
    n = len(judged.truth)
    make = torch.arange if judged.truth.ndim == 1 else torch.eye
    return torch.equal(judged.truth.double(), make(n, device=judged.truth.device, dtype=torch.double))


def is_one(output: Any) -> bool:
    """Whether a module's output holds one tensor that may be its answers: the place in a tuple says nothing."""
    if not isinstance(output, (list, tuple)) or hasattr(output, "_fields"):
        return True
    answers = [part for part in output if isinstance(part, torch.Tensor) and part.is_floating_point() and part.ndim > 0]
    return len([part for part in answers if part.ndim > 1] or answers) == 1


def distinct(judged: Sequence[Judged]) -> list[Judged]:
    """Without what is the same answers compared with the same labels again, as for a loss that is also logged."""
    kept: list[Judged] = []
    for one in judged:
        again = (other for other in kept if other.values is one.values and is_same(other.answers, one.answers))
        if not any(same(other.truth, one.truth) for other in again):
            kept.append(one)
    return kept


def outer(judged: Sequence[Judged], rows: int | None = None, *, are_same: bool = False) -> list[Judged]:
    """Without the losses that a model has of its own of answers that the step itself gives a criterion, too.

    Args:
        judged: What criteria were given.
        rows: How many samples the batch holds; of texts a step may leave out each one's last place.
        are_same: Whether all of them were given the same answers.
    """
    own = [one for one in judged if not one.is_inner]
    return [
        one
        for one in judged
        if not one.is_inner or not any(are_same or _are_answers_of(other, one, rows or 0) for other in own)
    ]


def _are_answers_of(own: Judged, inner: Judged, rows: int) -> bool:
    """Whether a step's criterion was given what the model's own was: the same memory, or all but each last place."""
    classes = inner.answers.shape[-1] if inner.answers.ndim == own.answers.ndim == 2 else 0
    is_shorter = rows > 0 and classes > 1 and own.answers.shape == (len(inner.answers) - rows, classes)
    return is_shorter or own.answers.data_ptr() == inner.answers.data_ptr()


def _fits(judged: Judged, labels: Any, rows: int) -> bool:
    """Whether a criterion was given one row a sample, or the places of all samples one below the other."""
    n = len(judged.answers) if judged.answers.ndim else 0
    if n == rows:
        return not is_of_one(judged, labels, rows)
    if judged.answers.ndim != 2 or not isinstance(labels, torch.Tensor) or labels.ndim != 2:
        return False
    return n in (labels.numel(), labels.numel() - rows)


def is_of_one(judged: Judged, labels: Any, rows: int) -> bool:
    """Whether a criterion was given the labels of one sample's places, as many as there are samples."""
    truth = judged.truth
    if truth.ndim != 1 or len(truth) < 2 or not isinstance(labels, (torch.Tensor, list, tuple)) or len(labels) != rows:
        return False
    if not isinstance(labels, torch.Tensor):
        return any(isinstance(one, torch.Tensor) and is_same(one, truth) for one in labels)
    if labels.ndim < 2 or truth.untyped_storage().data_ptr() != labels.untyped_storage().data_ptr():
        return False
    return truth.stride(0) < labels.stride(0)


def is_turned_part(tensor: torch.Tensor, batch: Any) -> bool:
    """Whether a tensor is a part of a batch with its first two dimensions turned, as recurrent networks take it."""
    for _, part in tensors_of(batch):
        if part.ndim < 2 or tensor.ndim != part.ndim or part.device != tensor.device or min(part.shape[:2]) < 2:
            continue
        other = part.transpose(0, 1)
        if tensor.shape != other.shape:
            continue
        if tensor.data_ptr() == part.data_ptr() and (tensor.stride() == other.stride() or part.shape != other.shape):
            return tensor.stride() == other.stride()
        if tensor.is_cpu and torch.equal(tensor.to(part.dtype), other) and not torch.equal(part, tensor.to(part.dtype)):
            return True
    return False


def is_part_of(answers: torch.Tensor, output: torch.Tensor) -> bool:
    """Whether a criterion was given a part of each sample's answers: some columns of them, a member of an ensemble.

    It lies in the output's memory; or, as after a change of the dtype, each of its columns is one of the output's.
    """
    if not (answers.ndim and output.ndim and 0 < answers.numel() < output.numel()):
        return False
    if answers.untyped_storage().data_ptr() == output.untyped_storage().data_ptr():
        (first, last), (begin, end) = _reach(answers), _reach(output)
        return begin <= first and last <= end and end - begin < output.numel()  # without gaps
    if not (output.is_cpu and answers.is_cpu and output.ndim == 2 and len(answers) == len(output)):
        return False
    if answers.numel() * output.shape[1] > _MOST_COMPARED:
        return False
    columns = answers.reshape(len(output), -1).to(output.dtype)
    return bool((columns[:, :, None] == output[:, None]).all(0).any(1).all())


def _reach(tensor: torch.Tensor) -> tuple[int, int]:
    """Where in its memory the first and the last number of a tensor lie."""
    first = int(tensor.storage_offset())
    return first, first + sum((int(n) - 1) * int(step) for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def are_several_parts(judged: Sequence[Judged], output: Any, labels: Any) -> bool:
    """Whether criteria were given several parts of one output that are each an answer: heads laid side by side, the
    members of an ensemble. Places one after the other are none, nor are a sample's numbers, each with its own label.
    """
    for _, whole in tensors_of(output):
        parts = [one for one in judged if not one.is_inner and one.answers.numel() < whole.numel()]
        if len(parts) < 2 or all(is_same(one.answers, parts[0].answers) for one in parts):
            continue
        if whole.ndim > 2 and not all(same(one.truth, parts[0].truth) for one in parts):
            continue
        are_numbers = all(one.is_each or one.values is Values.VALUE for one in parts)
        if are_numbers and isinstance(labels, torch.Tensor) and labels.shape == whole.shape:
            continue
        if sum(is_part_of(one.answers, whole) for one in parts) > 1:
            return True
    return False


def of_some_places(step: Step, labels: Any, output: Any) -> bool:
    """Whether a criterion was given the classes of some places of the output, laid one below the other."""
    if not (isinstance(labels, torch.Tensor) and labels.ndim >= 2):
        return False
    if any(one.counts is not False and is_of_unknown_places(one, labels) for one in step.judged):
        return True
    if labels.ndim > 2 or labels.is_floating_point():
        return False
    classes = output.shape[-1] if isinstance(output, torch.Tensor) and output.ndim > 2 else None
    chosen = (one for one in step.judged if one.answers.ndim == 2 and one.truth.ndim == 1)
    return any(len(one.truth) < labels.numel() and one.answers.shape[1] == classes for one in chosen)


def is_of_some(judged: Judged, rows: int) -> bool:
    """Whether a criterion was given an answer and a label of fewer samples than the batch has."""
    return judged.answers.ndim > 0 and len(judged.answers) == len(judged.truth) < rows


def is_output(answers: torch.Tensor, output: Any) -> bool:
    """Whether these are the module's output: of a named one the answers, of a plain tuple any part."""
    parts = items_of(output)
    if not isinstance(output, (list, tuple)) or hasattr(output, "_fields"):
        try:
            parts = [("", tensor_at(output, where_of(output)[0]))]
        except XaiError:
            return False
    return any(isinstance(part, torch.Tensor) and part.data_ptr() == answers.data_ptr() for _, part in parts)


def is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether these are one tensor in memory."""
    return a.shape == b.shape and a.data_ptr() == b.data_ptr()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether these are equal."""
    return is_same(a, b) or (a.shape == b.shape and a.device == b.device and bool((a == b).all()))


def meaning_of(judged: Judged, labels: Any, rows: int | None) -> tuple[Head, torch.Tensor, Any]:
    """What a criterion was given: what the answers mean, the answers (N, K, ...), and the truth."""
    answers, truth = judged.answers, judged.truth
    if rows and len(answers) != rows and answers.ndim == 2 and len(answers) % rows == 0:
        # The places of all samples one below the other, as texts are given to a cross entropy.
        answers = answers.reshape(rows, -1, answers.shape[1]).movedim(2, 1)
        truth = truth.reshape(rows, -1)
    width = 1 if answers.ndim == 1 else answers.shape[1]
    values = answers[:, None] if answers.ndim == 1 else answers
    if judged.values is Values.VALUE:
        values = values.flatten(1)
        width = values.shape[1]
        return Head(Task.REGRESSION, Values.VALUE, width, single=width == 1), values, truth.reshape(len(truth), -1)
    if judged.is_each:
        n = rows if rows and answers is not judged.answers else len(answers)
        if judged.answers[:1].numel() > width or n != len(judged.answers):
            # Yes or no at every place, of each of its numbers: of pictures (N, 1, H, W), of sounds (N, T, K).
            head = Head(Task.TOKEN_CLASSIFICATION, judged.values, 2, single=True)
            return head, judged.answers.reshape(n, 1, -1), judged.truth.reshape(n, -1)
        values, truth = (one.reshape(len(values), width) if values.ndim > 2 else one for one in (values, truth))
        task = Task.BINARY if width == 1 else Task.MULTILABEL
        head = Head(task, judged.values, 2 if width == 1 else width, single=width == 1, independent=width > 1)
        return head, values, truth
    # The batch's own labels before a mixture of them.
    is_own = isinstance(labels, torch.Tensor) and labels.shape == truth.shape
    given = labels if labels is not None and (is_own or truth.is_floating_point()) else truth
    task = Task.TOKEN_CLASSIFICATION if values.ndim > 2 else Task.CLASSIFICATION
    return Head(task, judged.values, width), values, given


def batch_first(judged: Judged, labels: torch.Tensor) -> Judged | None:
    """What a criterion was given of a batch whose labels are (places, samples), with the samples first; None where it
    is not known which it was given first.

    Args:
        judged: What it was given.
        labels: The batch's, as they are in it.
    """
    truth, (places, samples) = judged.truth, labels.shape[:2]
    turned = labels.transpose(0, 1)
    own, other = (
        which_of(truth, [one for one in layouts if one.numel()], is_shaped=True)
        for layouts in ((labels, labels[1:]), (turned, turned[:, 1:]))
    )
    is_flat, is_neither = truth.ndim < labels.ndim or places == samples, own is None and other is None
    if (own is not None and other is not None and is_flat) or (is_neither and (is_flat or truth.shape != labels.shape)):
        return None if min(places, samples) > 1 else judged
    if own is None and other is not None:
        return judged
    n = places if own is None else len(own)

    def turn(given: torch.Tensor | None) -> torch.Tensor | None:
        return None if given is None else given.reshape(n, samples, *labels.shape[2:]).transpose(0, 1)

    answers = judged.answers
    if judged.is_each or judged.values is Values.VALUE:
        answers = answers.reshape(n, samples, -1).transpose(0, 1).flatten(1)
    elif answers.ndim == 2:
        answers = answers.reshape(n, samples, -1).permute(1, 2, 0)
    elif answers.ndim == 3 and len(answers) == n:
        answers = answers.permute(2, 1, 0)
    else:
        return None
    given = truth.reshape(n, samples, *labels.shape[2:]).transpose(0, 1)
    return replace(judged, answers=answers, truth=given, each=turn(judged.each), counting=turn(judged.counting))


def labels_as(task: Task, truth: Any, width: int) -> torch.Tensor | None:
    """The labels of a task in what a criterion of another was given as its target; None where these say none.

    A class and its row of zeros and a one say the same, and so do yes and no as whole or as real numbers.
    """
    if not isinstance(truth, torch.Tensor) or not truth.ndim:
        return None
    if task is Task.BINARY and truth.numel() == len(truth) and are_bits(truth):
        return truth.reshape(-1).long()
    if task in (Task.MULTILABEL, Task.REGRESSION) and width > 1 and truth.ndim == 1 and not truth.is_floating_point():
        is_class = bool(((truth >= 0) & (truth < width)).all())
        return torch.nn.functional.one_hot(truth.long(), width) if is_class else None
    if truth.ndim != 2 or truth.shape[1] != width or not are_bits(truth):
        return None
    if task is Task.CLASSIFICATION and bool((truth.sum(1) == 1).all()):
        return truth.argmax(1)
    return truth.long() if task is Task.MULTILABEL else None


def are_parts(values: Any, rows: int | None) -> bool:
    """Whether these are the probabilities of classes for each of some samples, or their logarithms."""
    if not isinstance(values, torch.Tensor) or values.ndim != 2 or not values.is_floating_point():
        return False
    if len(values) != rows or values.shape[1] < 2:
        return False
    one = values.new_ones(())
    return any(
        bool((given >= 0).all()) and torch.allclose(given.sum(1), one, atol=1e-4) for given in (values, values.exp())
    )


def are_shares(truth: torch.Tensor) -> torch.Tensor:
    """Whether some of these are between no and yes, as smoothed labels and a teacher's probabilities are: one bool."""
    return ((truth > 0) & (truth < 1)).any()


def is_mixture(judged: Judged) -> bool:
    """Whether a criterion of classes was given a mixture of them, or one of yes and no something in between."""
    if not judged.truth.is_floating_point() or judged.values is Values.VALUE:
        return False
    return not judged.is_each or bool(are_shares(judged.truth))


def are_bits(truth: torch.Tensor) -> bool:
    """Whether these are zeros and ones."""
    return bool(((truth == 0) | (truth == 1)).all())


def tensors_of(output: Any) -> list[tuple[Any, torch.Tensor]]:
    """The tensors in what a module or a step returned, or of a batch, with their names."""
    return [(name, part) for name, part in items_of(output) if isinstance(part, torch.Tensor)]
