"""From what a model answered to the columns of `Run.log_samples`, task by task, and which places of texts count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import torch
from torch import Tensor

from xaicli.heads.head import Head, Task, Values
from xaicli.heads.outputs import items_of
from xaicli.integrations.answers import LEFT_OUT, are_shares, of_some_places, which_of
from xaicli.integrations.capture import Judged, Step
from xaicli.recorder.scores import derive_sequences_on_device, missing_on
from xaicli.vocabulary import Mode

_WEIGHED = (
    "weighs the losses of the places itself, and which of them count is not known; no samples of it are recorded: give "
    "those that do not count the label -100 (ignore_index), or give samples_fn"
)
_WEIGHED_NUMBERS = (
    "weighs the losses of a sample's numbers itself, and which of them count is not known; no samples of it are "
    "recorded: let the loss be the mean over those that a mask in the batch says, or give samples_fn"
)
_UNRETURNED = (
    "weighs the losses of the places, or of a sample's numbers, itself and returns no loss, and which of them count is "
    "not known; no samples of it are recorded: end it with return loss, or give samples_fn"
)
SOME_PLACES = (
    "gives its criterion some of the places alone, and which they are is not known; no samples of it are recorded: "
    "give it all, those that do not count with the label -100 (ignore_index), or give samples_fn"
)
_MASKS = ("mask", "length", "lens")
"""Parts of names under which batches say which places hold something."""
_OFF, _ROUNDED = 1e-4, 5e-7
"""By how much of itself a loss may be off from a mean that is meant to be it, and by how much rounding puts it off."""
_LEAST_LOSS = 1e-4
"""What a loss is at least taken to be where that is asked."""
_WITH_PLACES = (Task.SEQUENCE, Task.TOKEN_CLASSIFICATION, Task.SEGMENTATION)
_WITH_CLASSES = (Task.CLASSIFICATION, *_WITH_PLACES)
_ALL = ("", "all")
"""The way of what leaves out no place that has a label."""


@dataclass
class Told:
    """What the losses of a training's steps told of which places count, for evaluations of it that return no loss.

    Attributes:
        ways: By criterion, the ways to make a mask of a batch (the part, what is asked of it) that its losses were the
            means by, as far as all steps showed.
    """

    ways: dict[Any, frozenset[tuple[Any, str]]] = field(default_factory=dict)

    def note(self, by: Any, ways: frozenset[tuple[Any, str]]) -> None:
        """Remember by which ways the loss of a training's step may be a mean."""
        self.ways[by] = self.ways.get(by, ways) & ways or ways


def columns_of(
    head: Head,
    values: Tensor,
    labels: Any,
    *,
    shifted: bool = False,
    first: int = 0,
    keep_tokens: bool = False,
    ignored: int | None = None,
    void: int | None = LEFT_OUT,
    counting: Tensor | None = None,
    shares: bool | None = None,
) -> dict[str, Any]:
    """The arguments of `log_samples` that follow from a batch's answers, without the ids.

    Args:
        head: What the answers mean.
        values: (N, K, ...), as `Head.tensor` gives them.
        labels: The truth as the batch has it, or None.
        shifted: Whether the answer at each place is about the next one, as a causal language model's is.
        first: The place in its text of the first label.
        keep_tokens: Whether the scores of a text's tokens are among them, for a run that keeps the tokens' losses.
        ignored: The class that the criterion leaves out.
        void: The run's label that stands for none.
        counting: The numbers, or the classes each for itself, that count of each sample; None of all whose label is
            not missing (NaN).
        shares: Whether labels of yes and no are something in between; None to look, where that waits for no device.
    """
    values = values.detach()
    truth = _tensor(labels, values)
    if truth is not None and not truth.is_floating_point() and head.task in _WITH_CLASSES:
        fill = LEFT_OUT if head.task in _WITH_PLACES or void is None else void
        for left_out in {one for one in (ignored, void, LEFT_OUT) if one is not None and one != fill}:
            truth = truth.long()
            truth = truth.masked_fill(truth == left_out, fill)
        labels = truth
    if values.dtype not in (torch.float32, torch.float64) and head.task not in _WITH_PLACES:
        values = values.float()  # of places a part at a time: a vocabulary is large
    if counting is None and truth is not None and truth.is_floating_point() and truth.shape == values.shape:
        counting = ~truth.isnan() if head.task in (Task.MULTILABEL, Task.REGRESSION) and values.shape[1] > 1 else None
    if truth is not None and truth.is_floating_point() and head.single and head.has_classes:
        shares = truth.is_cpu and bool(are_shares(truth)) if shares is None else shares
        if head.has_places:
            return _of_yes_and_no(head, values, truth, counting, shares, first, keep_tokens)
        if shares and truth.numel() == len(values):
            # As parts of both classes: `log_samples` makes the soft cross entropy of them.
            labels = truth = torch.stack([1 - truth.reshape(-1), truth.reshape(-1)], 1)
    match head.task:
        case Task.CLASSIFICATION | Task.BINARY:
            return _of_classes(head, values, labels, truth)
        case Task.MULTILABEL:
            return _of_sets(head, values, truth, counting, void)
        case Task.REGRESSION:
            return _of_numbers(values, truth, counting)
        case Task.SEQUENCE | Task.TOKEN_CLASSIFICATION | Task.SEGMENTATION:
            are_tokens = head.task is not Task.SEGMENTATION
            return _of_places(head, values, truth, shifted, first, keep_tokens and are_tokens)
        case _:
            assert_never(head.task)


def _tensor(labels: Any, values: Tensor) -> Tensor | None:
    if labels is None or isinstance(labels, Tensor):
        return labels
    try:
        return torch.as_tensor(labels, device=values.device)
    except (TypeError, ValueError, RuntimeError):
        return None


def _of_classes(head: Head, values: Tensor, labels: Any, truth: Tensor | None) -> dict[str, Any]:
    label: Any = labels
    if truth is not None:
        label = truth.reshape(len(truth), -1)
        if label.shape[1] == head.classes and head.classes > 1 and label.shape[1] != 1:
            # Parts, or a one among zeros: `log_samples` makes of real numbers the soft cross entropy, and of logarithms
            # of parts, which are the only ones with nothing above zero, these.
            are_logarithms = (label <= 0).all(1, keepdim=True)
            label = torch.where(are_logarithms, label.exp(), label) if label.is_floating_point() else label.argmax(1)
        elif label.shape[1] == 1:
            label = label[:, 0]
        else:  # several a sample, none of which is known to be its own
            label = None
        if label is not None and label.is_floating_point() and label.ndim == 1:
            label = torch.where(label == label.floor(), label, -100.0).long()
    said = {} if label is None and truth is not None else {"label": label}
    if head.values is Values.LOGITS and not head.independent:
        return {**said, "logits": values}
    if head.values is Values.LOG_PROBABILITIES and not (head.independent or head.single):
        return {**said, "logits": values}
    return {**said, "probs": head.probabilities(values)}


def _of_sets(
    head: Head, values: Tensor, truth: Tensor | None, counting: Tensor | None, void: int | None
) -> dict[str, Any]:
    scores = "logits" if head.values is Values.LOGITS else "probs"
    columns = {
        scores: values if head.values is Values.LOGITS else head.at_places(values),
        "top_prob": head.top_prob(values),
    }
    if truth is None or truth.shape != values.shape:
        return columns
    # Whole numbers: rows of floats that sum to one would be taken for mixtures of classes.
    label = (truth > 0.5).long()
    if counting is not None:
        counting = counting.reshape(values.shape)
        label, inside = label * counting, head.at_places(values).float()
        # What is not known of a sample counts neither for its loss nor as right or wrong.
        each = torch.nn.functional.binary_cross_entropy(inside, label.float(), reduction="none")
        if head.values is Values.LOGITS:
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                values, label.to(values.dtype), reduction="none"
            )
        columns |= {"prediction": ((inside > 0.5) & counting).long(), "loss": _mean_of(each, counting)}
        if void not in (None, 0, 1):
            label = label.masked_fill(~counting.any(1, keepdim=True), void)
    return columns | {"label": label}


def _of_numbers(values: Tensor, truth: Tensor | None, counting: Tensor | None) -> dict[str, Any]:
    columns: dict[str, Any] = {"prediction": values[:, 0].double()} if values.shape[1] == 1 else {}
    if truth is None or truth.numel() != values.numel():
        return columns
    counting = torch.ones_like(values, dtype=torch.bool) if counting is None else counting.reshape(values.shape)
    residual = truth.reshape(values.shape).to(values.dtype) - values
    if values.shape[1] == 1:
        label = torch.where(counting[:, 0], truth.reshape(-1).double(), torch.nan)
        columns |= {"label": label, "residual": torch.where(counting[:, 0], residual[:, 0], torch.nan)}
    return columns | {"abs_error": _mean_of(residual.abs(), counting), "loss": _mean_of(residual.square(), counting)}


def _mean_of(each: Tensor, counting: Tensor) -> Tensor:
    """The mean of each row's numbers that count; missing where none does."""
    count = counting.sum(1)
    mean = torch.where(counting, each, 0.0).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean.float(), missing_on(mean.device))


def _of_places(
    head: Head, values: Tensor, truth: Tensor | None, shifted: bool, first: int, keep_tokens: bool
) -> dict[str, Any]:
    if truth is None or truth.shape != (len(values), *values.shape[2:]):
        return {}
    if shifted:
        values, truth = values[:, :, :-1], truth[:, 1:]
    are_logits = head.values is Values.LOGITS
    if head.single or not are_logits:
        values = head.logits(values) if are_logits else head.at_places(values.float())
    scores, label = values.flatten(2).movedim(1, 2), truth.flatten(1).long()
    # An answer that is about the next place: the first label is of the second.
    found: dict[str, Any] = derive_sequences_on_device(
        scores, label, are_logits=are_logits, ignored=LEFT_OUT, first=first + int(shifted)
    )
    return {"label": label, "logits" if are_logits else "probs": scores, **found} if keep_tokens else found


def _of_yes_and_no(
    head: Head, values: Tensor, truth: Tensor, counting: Tensor | None, shares: bool, first: int, keep_tokens: bool
) -> dict[str, Any]:
    """The columns of one number a place that means yes or no: beside what lies in between the loss alone."""
    if truth.numel() != values.numel():
        return {}
    values, truth = values.reshape(len(values), 1, -1), truth.reshape(len(values), -1)
    counts = ~truth.isnan() if counting is None else counting.reshape(truth.shape) & ~truth.isnan()
    if not shares:
        return _of_places(head, values, truth.masked_fill(~counts, LEFT_OUT), False, first, keep_tokens)
    log_p = head.logits(values.float()).log_softmax(1)
    return {"loss": _mean_of(-(log_p[:, 0] * (1 - truth) + log_p[:, 1] * truth), counts)}


def _may_leave_out(batch: Any, truth: Any, ignored: int | None) -> bool:
    """Whether a batch says of some places that they hold nothing, and their labels do not: the step may heed it.

    What the criterion was given as its target is no mask, whatever its name.
    """
    if not isinstance(truth, torch.Tensor) or (truth.is_cpu and ignored is not None and ignored in truth):
        return False
    named = [(str(name), part) for name, part in items_of(batch) if isinstance(part, torch.Tensor)]
    masks = [
        part
        for name, part in named
        if any(word in name.lower() for word in _MASKS) or (part.dtype is torch.bool and part.shape == truth.shape)
        if not _is_target(part, truth)
    ]
    return any(not part.is_cpu or bool((part != part.flatten()[:1]).any()) for part in masks) or any(
        _is_filled_up(one) for _, part in named if not part.is_floating_point() for one in _of_places_in(part, truth)
    )


def _of_places_in(part: torch.Tensor, truth: torch.Tensor) -> list[torch.Tensor]:
    """What of a part of a batch has a value for every label: all, or of texts whose labels are their next tokens the
    places of these, and those before.
    """
    if part.shape == truth.shape:
        return [part]
    is_longer = part.ndim == truth.ndim == 2 and part.shape == (len(truth), truth.shape[1] + 1)
    return [part[:, 1:], part[:, :-1]] if is_longer else []


def _is_filled_up(rows: torch.Tensor) -> bool:
    """Whether some rows end, or begin, with a value over and over that stands nowhere else: a step may leave it out."""
    if not rows.is_cpu or rows.ndim != 2:
        return False
    for at_end in (rows, rows.flip(1)):
        is_fill = at_end == at_end[:, -1].mode().values
        filled = is_fill.flip(1).long().cumprod(1).flip(1).bool()
        if bool((filled.sum(1) > 1).any() and not (is_fill & ~filled).any() and not filled.all()):
            return True
    return False


def _is_target(part: torch.Tensor, truth: torch.Tensor) -> bool:
    """Whether a part of a batch is what a criterion was given as its target: as it is, as other two values, or as rows
    of zeros and a one.
    """
    if not (part.ndim and part.numel()) or part.device != truth.device or len(part) != len(truth):
        return False
    if truth.numel() % part.numel():
        return False
    if which_of(truth, [part]) is not None:
        return True
    if part.numel() == truth.numel():
        a, b = part.reshape(-1).double(), truth.reshape(-1).double()
        are_two = all(bool(((one == one.amin()) | (one == one.amax())).all()) for one in (a, b))
        return are_two and torch.equal(a != a.amin(), b != b.amin())
    classes = truth.numel() // part.numel()
    rows = truth.reshape(len(truth), classes, -1), truth.reshape(len(truth), -1, classes).transpose(1, 2)
    return any(bool((one.sum(1) == 1).all()) and which_of(one.argmax(1), [part]) is not None for one in rows)


def _masks(batch: Any, truth: torch.Tensor) -> Iterator[tuple[tuple[Any, str], torch.Tensor]]:
    """What a step may make of a batch to say which places count: what is not zero, or not what fills up.

    A target of yes and no is none.
    """
    parts = [(name, part) for name, part in items_of(batch) if isinstance(part, torch.Tensor) and part.is_cpu]
    is_next = any(part.shape != truth.shape and _of_places_in(part, truth) for _, part in parts)
    are_bits = truth.is_floating_point() and bool(((truth == 0) | (truth == 1)).all())
    for name, part in parts:
        if are_bits and _is_target(part, truth):
            continue
        for place, one in enumerate(_of_places_in(part, truth)):
            at = name, place
            yield (at, "not zero"), one != 0
            if one.dtype is torch.bool:
                yield (at, "zero"), ~one
            elif one.is_floating_point():
                yield (at, "number"), ~one.isnan()
                yield (at, "not negative"), one >= 0
            else:
                # Texts are filled up at an end; in pictures a class that does not count is the first or the last one.
                ends = (one.amin(), one.amax()) if one.ndim > 2 else (one[:, end].mode().values for end in (0, -1))
                for end, value in zip(("first", "last"), map(int, ends), strict=True):
                    if value:
                        yield (at, end), one != value
        if part.ndim == 1 and len(part) == len(truth) and truth.ndim == 2 and not part.is_floating_point():
            for less, length in enumerate((part, part - 1) if is_next else (part,)):
                yield (name, f"length - {less}"), torch.arange(truth.shape[1])[None] < length[:, None]


def _distinct_masks(masks: Iterable[tuple[Any, torch.Tensor]]) -> list[tuple[frozenset[Any], torch.Tensor]]:
    """Each mask once, with all the ways that make it."""
    kept: list[tuple[frozenset[Any], torch.Tensor]] = []
    for way, mask in masks:
        number = next((n for n, (_, other) in enumerate(kept) if torch.equal(mask, other)), None)
        if number is None:
            kept.append((frozenset({way}), mask))
        else:
            kept[number] = kept[number][0] | {way}, kept[number][1]
    return kept


def _loss_of(step: Step) -> torch.Tensor | None:
    """The loss that a step returned; None where it is on a device, which looking would wait for."""
    loss = step.returned.get("loss") if isinstance(step.returned, Mapping) else step.returned
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.is_cpu):
        return None
    return loss.detach().float().reshape(())


def _counting(
    step: Step, batch: Any, each: torch.Tensor, truth: torch.Tensor, by: Any, told: Told, mode: Mode
) -> torch.Tensor | None:
    """The places of which the loss that a step returned is the mean: all of them, or what it may make of its batch.

    None where no such places, or several, give that loss. Of an evaluation that returned none, those of the training's.

    Args:
        step: What was seen of it.
        batch: What says which these may be.
        each: The loss of each place.
        truth: The labels.
        by: The criterion.
        told: What the training's losses told.
        mode: The mode.
    """
    loss = _loss_of(step)
    if loss is None and (step.loss is not None or mode is Mode.TRAIN or by not in told.ways or not truth.is_cpu):
        return None
    labelled = truth != LEFT_OUT
    masks = _distinct_masks([(_ALL, labelled), *((way, mask & labelled) for way, mask in _masks(batch, truth))])
    if loss is None:
        as_trained = [mask for ways, mask in masks if ways & told.ways[by]]
        return as_trained[0] if len(as_trained) == 1 else None
    found: list[tuple[float, frozenset[Any], torch.Tensor]] = []
    for ways, mask in masks:
        counts = mask.sum(1)
        if not bool(counts.sum()):
            continue
        of_rows = torch.where(mask, each, 0.0).sum(1)
        whole = of_rows.sum()
        means = [whole / counts.sum(), (of_rows / counts.clamp(min=1))[counts > 0].mean()]
        means += [whole / each.numel(), whole / len(each), *([whole] if _ALL in ways else [])]
        off = min(abs(float(loss - mean)) for mean in means) / max(abs(float(loss)), _LEAST_LOSS)
        if off <= _OFF:
            found.append((off, ways, mask))
    found.sort(key=lambda one: one[0])
    # Of a model that knows nothing yet every place has nearly the same loss: one mean is the loss but for rounding.
    is_one = len(found) == 1 or (len(found) > 1 and found[0][0] <= _ROUNDED < found[1][0] / 4)
    if is_one and mode is Mode.TRAIN:
        told.note(by, found[0][1])
    return found[0][2] if is_one else None


def that_count(
    step: Step, batch: Any, judged: Judged, meaning: tuple[Head, Tensor, Any], labels: Any, told: Told, mode: Mode
) -> tuple[Any, Tensor | None, str | None]:
    """What of a criterion's target counts in the loss that a step returned.

    Args:
        step: What was seen of it.
        batch: What says which places may count.
        judged: What the criterion was given.
        meaning: What that is: the head, the answers (N, K, ...) and the target.
        labels: The batch's labels.
        told: What the training's losses told.
        mode: The mode.

    Returns:
        The target, without the classes of places that do not count; of numbers, and of classes each for itself, which
        count, None of all; and why it is not known, where it is not.
    """
    head, values, truth = meaning
    is_whole = isinstance(truth, Tensor) and not truth.is_floating_point()
    if judged.is_weighed and head.task is Task.TOKEN_CLASSIFICATION and is_whole and not judged.is_each:
        truth = without_left_out(step, batch, judged, values, truth, told, mode)
        if truth is None:
            return None, None, weighed(step)
    if not (judged.is_each or head.task is Task.REGRESSION):
        return truth, None, None
    counting, is_known = _numbers_that_count(step, batch, judged, labels, told, mode)
    return truth, counting, None if is_known else weighed(step, _WEIGHED_NUMBERS)


def weighed(step: Step, reason: str = _WEIGHED) -> str:
    """Why it is not known which places count in a step that weighs their losses itself."""
    return reason if step.loss is not None else _UNRETURNED


def _numbers_that_count(
    step: Step, batch: Any, judged: Judged, labels: Any, told: Told, mode: Mode
) -> tuple[torch.Tensor | None, bool]:
    """Which of a sample's numbers, or classes each for itself, count in the loss of a step; None of all.

    Returns:
        These, and whether it is known.
    """
    truth, counting = judged.truth, judged.counting
    own = labels if isinstance(labels, torch.Tensor) and labels.numel() == truth.numel() else None
    if own is not None and own.is_floating_point() and (not own.is_cpu or bool(own.isnan().any())):
        known = ~own.to(truth.device).isnan().reshape(truth.shape) | truth.isnan()  # filled in, they are no labels
        counting = known if counting is None else counting.reshape(truth.shape) & known
    if judged.each is None or truth.ndim < 2 or counting is not None:
        return counting, True
    n = len(truth)
    each, flat = judged.each.reshape(n, -1).float(), truth.reshape(n, -1)
    inside = _counting(step, batch, each, flat, judged.by, told, mode)
    if inside is not None:
        return (None if bool(inside.all()) else inside), True
    is_unknown = truth.is_cpu and truth.is_floating_point() and bool(truth.isnan().any())
    if own is not None and judged.is_each and own.is_cpu:
        is_unknown = is_unknown or bool((own < 0).any() and (truth >= 0).all())
    return None, not (is_unknown or _may_leave_out(batch, flat, None))


def of_chosen_places(step: Step, batch: Any, labels: Any, output: Any = None) -> tuple[Any, torch.Tensor] | None:
    """The module's output, or that given, and the labels of the places that a criterion was given one below the other.

    None where what a step may make of its batch does not say which these are.
    """
    if len(step.forwards) != 1 or not isinstance(labels, torch.Tensor) or not labels.is_cpu:
        return None
    output = step.forwards[0].output if output is None else output
    if not isinstance(output, torch.Tensor) or not of_some_places(step, labels, output) or len(step.judged) != 1:
        return None
    judged, given = step.judged[0], output.detach()
    given = given if given.shape[: labels.ndim] == labels.shape else given.movedim(1, -1)
    found = [
        mask
        for _, mask in _distinct_masks(_masks(batch, labels) if given.shape[: labels.ndim] == labels.shape else ())
        if torch.equal(labels[mask], judged.truth) and torch.equal(given[mask], judged.answers)
    ]
    return (output, labels.masked_fill(~found[0], LEFT_OUT)) if len(found) == 1 else None


def without_left_out(
    step: Step, batch: Any, judged: Judged, values: torch.Tensor, truth: Any, told: Told, mode: Mode
) -> Any:
    """The labels of the places that a step counts, which weighs the losses of all: those of others left out.

    Args:
        step: What was seen of it.
        batch: What says which these may be.
        judged: What its criterion was given.
        values: The answers, (N, classes, places).
        truth: The labels, (N, places).
        told: What the training's losses told.
        mode: The mode.

    Returns:
        The labels; None where it is not known which count.
    """
    given, ignored = truth, judged.ignored
    if ignored is not None:
        truth = truth.masked_fill(truth == ignored, LEFT_OUT)
    each = torch.nn.functional.cross_entropy(values.float(), truth.long(), reduction="none")
    inside = _counting(step, batch, each, truth, judged.by, told, mode)
    if inside is None:
        return None if _may_leave_out(batch, given, ignored) else truth
    return truth.masked_fill(~inside, LEFT_OUT)
