"""Deciding what a model's output means; where that cannot be decided, the task is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from xaicli.errors import XaiError
from xaicli.heads.attributes import held
from xaicli.heads.evaluation import evaluating, modules_behind
from xaicli.heads.head import Head, Task, Text, Values, named_task
from xaicli.heads.labels import Kind, Labels, kind_of
from xaicli.heads.operations import Origin, Range, watching
from xaicli.heads.outputs import refuse_spans, tensor_at, where_of

OriginOf = Callable[[Tensor], Origin | None]

_TASKS_OF_CLASSES = {
    "ForSequenceClassification": Task.CLASSIFICATION,
    "ForImageClassification": Task.CLASSIFICATION,
    "ForVideoClassification": Task.CLASSIFICATION,
    "ForAudioClassification": Task.CLASSIFICATION,
    "ForTokenClassification": Task.TOKEN_CLASSIFICATION,
    "ForSemanticSegmentation": Task.SEGMENTATION,
    "ForCausalLM": Task.SEQUENCE,
    "LMHeadModel": Task.SEQUENCE,
    "ForMaskedLM": Task.SEQUENCE,
    "ForConditionalGeneration": Task.SEQUENCE,
    "ForSeq2SeqLM": Task.SEQUENCE,
}
"""What a transformers class was made for, by the end of its name."""

_TEXTS = {
    "ForCausalLM": Text.CAUSAL,
    "LMHeadModel": Text.CAUSAL,
    "ForMaskedLM": Text.MASKED,
}
"""How those of texts answer whose name says it; of the others the configuration does."""

_FAMILIES = {
    "torchvision.models.segmentation._utils._SimpleSegmentationModel": Task.SEGMENTATION,
    "torchvision.models.segmentation.lraspp.LRASPP": Task.SEGMENTATION,
    "segmentation_models_pytorch.base.model.SegmentationModel": Task.SEGMENTATION,
}
"""What the models of other libraries were made for, by the class they inherit from."""

_PROBLEMS = {
    "regression": Task.REGRESSION,
    "single_label_classification": Task.CLASSIFICATION,
    "multi_label_classification": Task.MULTILABEL,
}
"""`problem_type` of a transformers configuration."""

_REAL = frozenset({Kind.NUMBERS, Kind.WHOLE_NUMBERS, Kind.SOFT, Kind.PARTS, Kind.VALUES})
_BY_PLACE = frozenset({Kind.PLACES, Kind.SETS, Kind.ONE_HOT, Kind.SOFT, Kind.PARTS, Kind.VALUES})
_NAMING = frozenset({Kind.CLASSES, Kind.NAMES, Kind.YES_NO, Kind.ZERO_ONE_NUMBERS, Kind.WHOLE_NUMBERS})

_BY_OPTION = "--task or task= says so"
_ASK = "say it with --task (task=): " + ", ".join(Task)


@dataclass(frozen=True)
class Known:
    """What is known of a model beside its output, from its configuration or its checkpoint.

    Attributes:
        task: What it was trained for; None where nothing says so.
        classes: How many classes it tells apart.
        source: Where both are from.
        are_logits: Whether its numbers are logits for certain, as those of every transformers model are.
        text: How a model of texts answers at its places.
        pad: The token that fills short texts up.
        spans: Whether it may answer with the places where an answer starts and ends.
    """

    task: Task | None = None
    classes: int | None = None
    source: str = ""
    are_logits: bool = False
    text: Text | None = None
    pad: int | None = None
    spans: bool = False


NOTHING = Known()


def head_of(
    model: Callable[..., Any],
    *inputs: Any,
    task: str | Task | None = None,
    output: str | int | None = None,
    labels: Any = None,
    facts: Any = None,
    **named: Any,
) -> Head:
    """The head of a model, by running it once on a few inputs, in evaluation mode and without gradients.

    Args:
        model: A module or a function of tensors; nothing of it is changed.
        inputs, named: What it is called with.
        task, output, labels, facts: As `decide`.

    Raises:
        XaiError: As `decide`.
    """
    with ExitStack() as modes, torch.no_grad(), watching() as origin:
        for module in modules_behind(model):
            modes.enter_context(evaluating(module, written=module.parameters()))
        result = model(*inputs, **named)
        return decide(result, origin=origin, task=task, output=output, labels=labels, known=known_of(model, facts))


def decide(
    result: Any,
    *,
    origin: OriginOf | None = None,
    task: str | Task | None = None,
    output: str | int | None = None,
    labels: Any = None,
    known: Known = NOTHING,
    expected: Collection[Task] = (),
) -> Head:
    """The head behind an output.

    Args:
        result: What the model returned for any batch; only its structure, shapes and dtypes are looked at.
        origin: What `watching()` gave while the model ran; None where it could not be watched.
        task: What the caller says: a task, or one with its values ("classification:probabilities").
        output: The key or position of the output that counts; None to find it.
        labels: The samples' labels, or what `kind_of` makes of them.
        known: What the model's configuration and checkpoint say; see `known_of`.
        expected: The tasks the caller can do something with: a collector of classification takes zeros and ones
            that are written as floats for classes, and numbers that no operation made for logits.

    Raises:
        XaiError: It cannot be decided: the message says why, the hint asks for the task or the output.
    """
    given, values = named_task(task) if task is not None else (None, None)
    known = replace(known, task=given, source=_BY_OPTION) if given is not None else known
    if given is None:
        refuse_spans(result, known=known.spans)
    where, found = (
        (str(output), f"its output {output!r}") if output not in (None, "") else where_of(result, known.classes)
    )
    tensor = tensor_at(result, where)
    kind = labels if isinstance(labels, Labels) else kind_of(labels)
    made = origin(tensor) if origin is not None else None
    evidence = _Evidence(tuple(tensor.shape[1:]), made, kind, known, values, frozenset(expected))
    head = evidence.head()
    said = head.decided + (f"; taken from {found}" if found else "")
    return replace(head, where=where, decided=said, text=known.text, pad=known.pad)


def known_of(model: Any, facts: Any = None) -> Known:
    """What a model's configuration (transformers) and its checkpoint's facts say of its head.

    Args:
        model: A module, wrapped or not; other callables say nothing.
        facts: `CheckpointFacts`, or anything with `label_names` and, where it is known, `task`.
    """
    names = getattr(facts, "label_names", None)
    classes = len(names) if names else None
    told = getattr(facts, "task", None)
    if told is not None and str(told) in tuple(Task):
        text, pad = getattr(facts, "text", None), getattr(facts, "pad_token", None)
        kind = Text(text) if text in tuple(Text) else None
        return Known(Task(str(told)), classes, "the checkpoint's facts", text=kind, pad=pad)
    for inner in _inside(model):
        if (found := _configured(inner)) is not None:
            return found
        for base in type(inner).__mro__:
            if task := _FAMILIES.get(f"{base.__module__}.{base.__qualname__}"):
                return Known(task, classes, f"a {type(inner).__name__} is made for it")
    arch = str(getattr(facts, "arch", None) or "")
    task = _by_name(arch) if re.fullmatch(r"\w+", arch) else None
    return Known(task, classes, f"the checkpoint of a {arch}" if task else "the checkpoint's label names")


def _inside(model: Any) -> Iterator[Any]:
    """The model, and what is inside its wrappers."""
    seen: set[int] = set()
    while isinstance(model, nn.Module) and id(model) not in seen:
        seen.add(id(model))
        yield model
        parts = dict(model.named_children())
        model = next((parts[name] for name in ("module", "_orig_mod", "model", "base_model") if name in parts), None)


_NONE = object()


def _configured(model: Any) -> Known | None:
    config = getattr(model, "config", None)
    if held(config, "model_type", _NONE) is _NONE or held(config, "to_dict", _NONE) is _NONE:
        return None
    name = type(model).__name__
    task = _by_name(name) or (Task.SEQUENCE if _generates(model) else None)
    if task is None:
        return (
            Known(source=f"the configuration of {name}", spans=True) if name.endswith("ForQuestionAnswering") else None
        )
    size = getattr(config, "num_labels", None)
    if task is Task.CLASSIFICATION:
        problem = getattr(config, "problem_type", None)
        if problem is None and size == 1:
            return Known(Task.REGRESSION, 1, f"the configuration of {name} (num_labels=1)", True)
        task = _PROBLEMS.get(str(problem), task)
    text, pad = None, getattr(config, "pad_token_id", None)
    if task is Task.SEQUENCE:
        size, pad = (_of_words(config, "vocab_size"), _of_words(config, "pad_token_id"))
        text = _text_of(name, config)
    said = f"the configuration of {name}"
    return Known(task, size if isinstance(size, int) else None, said, True, text, pad if isinstance(pad, int) else None)


def _generates(model: Any) -> bool:
    """Whether a transformers model continues texts, whatever it is called (MarianMTModel, EncoderDecoderModel)."""
    asked = getattr(model, "can_generate", None)
    return callable(asked) and asked() is True


def _text_of(name: str, config: Any) -> Text:
    """How a model of texts answers: a conditional one without a decoder of its own (Llava) continues what it reads."""
    if (text := next((text for end, text in _TEXTS.items() if name.endswith(end)), None)) is not None:
        return text
    if getattr(config, "is_encoder_decoder", False):
        return Text.DECODER
    return Text.CAUSAL if getattr(config, "causal", True) else Text.MASKED


def _of_words(config: Any, name: str) -> Any:
    """What a configuration, or that of the part that writes, says of its words."""
    parts = (config, getattr(config, "decoder", None), getattr(config, "text_config", None))
    return next((found for part in parts if isinstance(found := getattr(part, name, None), int)), None)


def _by_name(name: str) -> Task | None:
    return next((task for end, task in _TASKS_OF_CLASSES.items() if name.endswith(end)), None)


@dataclass(frozen=True)
class _Evidence:
    """All that a decision may rest on.

    Attributes:
        shape: Of the output, without the samples.
        made: What made it.
        labels: What the labels are.
        known: What configuration, checkpoint or caller say.
        values: What the caller says its numbers are.
        expected: The tasks the caller can use.
    """

    shape: tuple[int, ...]
    made: Origin | None
    labels: Labels
    known: Known
    values: Values | None
    expected: frozenset[Task]

    def head(self) -> Head:
        """The decision."""
        axis = self._axis()
        width = 1 if axis is None else self.shape[axis]
        task, reason = self._task(axis, width)
        if task is Task.REGRESSION:
            return Head(
                task, Values.VALUE, width, single=width == 1, axis=axis, decided=self._in_words(task, width, reason)
            )
        values, independent = self._values(task, axis, width)
        single = width == 1
        head = Head(task, values, 2 if single else width, single, independent, "", axis)
        return replace(head, decided=self._in_words(task, head.classes, reason, head))

    @property
    def range(self) -> Range | None:
        return self.made.range if self.made is not None else None

    def _axis(self) -> int | None:
        """The axis of the classes, from the end; None where each number stands alone."""
        n = len(self.shape)
        if n == 0:
            return None
        if n == 1:
            return -1
        if self.made is not None and self.made.axis is not None and -self.made.axis <= n:
            return self.made.axis
        if self.labels.kind in _BY_PLACE and self.labels.shape == self.shape:
            # Masks of (N, 1, H, W) keep the axis of one class as the output does.
            return -n if n > 2 and self.shape[0] == 1 else None
        if self.known.classes is not None:
            fitting = [axis for axis in (-1, -n) if self.shape[axis] == self.known.classes]
            if len(fitting) == 1:
                return fitting[0]
        if self.labels.kind is Kind.PLACES and self.labels.shape:
            fitting = [axis for axis in (-1, -n) if _without(self.shape, axis) == self.labels.shape]
            if len(fitting) == 1:
                return fitting[0]
        if n == 2 and self.expected == {Task.SEGMENTATION}:
            return None
        if n == 2:
            text = self.known.task in (Task.TOKEN_CLASSIFICATION, Task.SEQUENCE) and self.known.are_logits
            if text:
                return -1
            if self.known.task is Task.SEGMENTATION:
                return None
            return -1
        return -n

    def _task(self, axis: int | None, width: int) -> tuple[Task, str]:
        places = len(self.shape) > (0 if axis is None else 1) and self._places(axis) != 1
        task = self.known.task
        if task is not None and not (self.known.are_logits and self.known.classes not in (None, width)):
            found, said = self._fitting(task, width, places), self.known.source
            if found is Task.BINARY and task is Task.CLASSIFICATION:
                said = f"it gives one number a sample, so that classification ({said}) is yes or no"
            return found, said
        if self.labels.kind in _REAL and not self._is_probability and (told := self._task_of_reals(width, places)):
            return told
        if places:
            return self._task_of_places(axis, width)
        if width == 1:
            return self._task_of_one_number()
        if self.labels.kind in (Kind.SETS, Kind.ONE_HOT) and self.labels.shape in ((), (width,)):
            return self._task_of_sets(width)
        if self.labels.kind in _NAMING:
            return Task.CLASSIFICATION, "its labels are classes"
        if self.range in (Range.PROBABILITIES, Range.LOG_PROBABILITIES):
            return Task.MULTILABEL, f"each of its numbers is a probability of its own ({self._operation})"
        return Task.CLASSIFICATION, f"it gives {width} numbers a sample"

    def _task_of_reals(self, width: int, places: bool) -> tuple[Task, str] | None:
        """The task of labels that are real numbers; None where they say as much as classes do.

        Raises:
            XaiError: They are as little the model's numbers as they are its classes.
        """
        kind, shape = self.labels.kind, self.labels.shape
        if kind is Kind.WHOLE_NUMBERS and width > 1 and not places:
            return None
        if kind is Kind.NUMBERS and width > 1 and not places:
            raise XaiError(
                f"the model gives {width} numbers a sample, and the labels are one real number each: no class of them, "
                "and no value for each",
                hint=_ASK,
            )
        if shape == (width,) and kind is Kind.SOFT:
            return Task.CLASSIFICATION, "its labels are probabilities of classes"
        if shape == (width,) and kind is Kind.PARTS:
            raise XaiError(
                f"the labels are {width} numbers from 0 to 1 a sample that do not sum to one, and the model gives "
                f"{width} numbers: values, or how much there is of each class, cannot be told",
                hint="say it with --task (task=): regression or multilabel",
            )
        return Task.REGRESSION, "its labels are real numbers"

    def _task_of_sets(self, width: int) -> tuple[Task, str]:
        if self.range in (Range.DISTRIBUTION, Range.LOG_DISTRIBUTION):
            return Task.CLASSIFICATION, f"its probabilities sum to one ({self._operation})"
        if self.range in (Range.PROBABILITIES, Range.LOG_PROBABILITIES) or self.labels.shape == ():
            return Task.MULTILABEL, "its labels are sets of classes"
        if self.labels.kind is Kind.SETS:
            return Task.MULTILABEL, "its labels are rows of any number of classes"
        # One-hot labels and sets of one class each look alike: which loss it was trained with cannot be seen.
        if Task.MULTILABEL in self.expected and Task.CLASSIFICATION not in self.expected:
            return Task.MULTILABEL, "its labels are sets of classes"
        if self.expected:
            return Task.CLASSIFICATION, "its labels are one-hot"
        raise XaiError(
            f"the labels are rows of zeros and a one, and the model gives {width} logits: one class of them, or "
            "any number, cannot be told",
            hint="say it with --task (task=): classification or multilabel",
        )

    def _task_of_one_number(self) -> tuple[Task, str]:
        if self._is_probability:
            return Task.BINARY, f"its one number is a probability ({self._operation})"
        if self.labels.kind is Kind.YES_NO:
            return Task.BINARY, "it gives one number a sample, and its labels are 0 and 1"
        if self.labels.kind is Kind.ZERO_ONE_NUMBERS and Task.BINARY in self.expected:
            return Task.BINARY, "it gives one number a sample, and its labels are 0 and 1"
        if self.labels.kind is Kind.NAMES:
            return Task.BINARY, "it gives one number a sample, and its labels are names"
        if self.known.classes == 2:
            return Task.BINARY, f"it gives one number a sample, and {self.known.source} name two classes"
        if self.labels.kind in (Kind.CLASSES, Kind.WHOLE_NUMBERS):
            return Task.REGRESSION, "it gives one number a sample, and its labels are more than 0 and 1"
        what = f"comes from {self._operation}" if self.made else "could not be traced"
        raise XaiError(
            f"the model gives one number a sample, which {what}: a logit of yes or no, or a value, cannot be told",
            hint="say it with --task (task=): binary or regression",
        )

    def _task_of_places(self, axis: int | None, width: int) -> tuple[Task, str]:
        at_places = self.labels.kind in (Kind.PLACES, Kind.SETS, Kind.ONE_HOT)
        if at_places and len(self.labels.shape) == 1 and axis is not None:
            return Task.TOKEN_CLASSIFICATION, "its labels are a class at every place"
        if at_places:
            return Task.SEGMENTATION, "its labels are a class at every place"
        if self.expected == {Task.SEGMENTATION}:
            return Task.SEGMENTATION, "masks are collected"
        text = len(self.shape) == 2 and axis is not None
        told = Task.TOKEN_CLASSIFICATION if text else Task.SEGMENTATION
        where = f"each of {self._places(axis)} places" if text else "every place of a picture"
        numbers = f"the model gives numbers of shape (N, {', '.join(map(str, self.shape))})"
        if axis is None or (width == 1 and not self._is_probability):
            raise XaiError(
                f"{numbers}, one a place: yes or no, or a value, cannot be told",
                hint="say it with --task (task=): segmentation or regression",
            )
        if self.range in (Range.DISTRIBUTION, Range.LOG_DISTRIBUTION) or (width == 1 and self._is_probability):
            return told, f"it gives probabilities at {where} ({self._operation})"
        if self.known.classes == width:
            return told, f"it gives {width} numbers at {where}, as many as {self.known.source}"
        which = "token_classification, sequence or regression" if text else "segmentation or regression"
        raise XaiError(
            f"{numbers}: a class of {width} at {where}, or values, cannot be told",
            hint=f"say it with --task (task=): {which}",
        )

    def _fitting(self, task: Task, width: int, places: bool) -> Task:
        """A task that is said, as the output's shape allows it.

        Raises:
            XaiError: It does not.
        """
        if task is Task.CLASSIFICATION and width == 1 and not places:
            return Task.BINARY
        if task is Task.BINARY and width == 2:
            return Task.CLASSIFICATION
        if task is Task.SEQUENCE and len(self.shape) > 2 and self.known.source != _BY_OPTION:
            return Task.SEGMENTATION  # recorded as a sequence of pixels
        wanted = task in (Task.SEQUENCE, Task.TOKEN_CLASSIFICATION, Task.SEGMENTATION)
        shape = f"(N, {', '.join(map(str, self.shape))})" if self.shape else "(N,)"
        if wanted and not places and len(self.shape) < 2:
            raise XaiError(f"the model's output {shape} has no places: it is no {task}", hint=_ASK)
        if task is Task.BINARY and width != 1:
            raise XaiError(f"the model's output {shape} is {width} numbers a sample: it is no {task}", hint=_ASK)
        if task is Task.MULTILABEL and places and not self.known.are_logits and self.known.source == _BY_OPTION:
            raise XaiError(f"the model's output {shape} has places: it is no {task}", hint=_ASK)
        return task

    def _values(self, task: Task, axis: int | None, width: int) -> tuple[Values, bool]:
        """What the numbers are, and whether each is for itself."""
        many = task is Task.MULTILABEL
        if self.values is not None:
            return self.values, many or self.range in (Range.PROBABILITIES, Range.LOG_PROBABILITIES)
        if self.known.are_logits and not self._is_probability:
            return Values.LOGITS, many
        range_, at = self.range, self.made.axis if self.made is not None else None
        if (
            range_ in (Range.DISTRIBUTION, Range.LOG_DISTRIBUTION)
            and at is not None
            and at != axis
            and axis is not None
        ):
            raise self._unclear(f"its {self._operation} runs along axis {at}, which is not that of its classes")
        match range_:
            case Range.DISTRIBUTION:
                return Values.PROBABILITIES, many
            case Range.PROBABILITIES:
                return Values.PROBABILITIES, True
            case Range.LOG_DISTRIBUTION:
                return Values.LOG_PROBABILITIES, many
            case Range.LOG_PROBABILITIES:
                return Values.LOG_PROBABILITIES, True
            case Range.UNKNOWN:
                raise self._unclear(f"the range of its last operation ({self._operation}) is not known")
            case Range.POSITIVE if self.made is not None and self.made.operation.startswith(("exp", "square", "abs")):
                raise self._unclear(f"its last operation ({self._operation}) gives no logits")
            case Range.REAL | Range.POSITIVE:
                binary = self.known.source == _BY_OPTION and self.known.task is not Task.CLASSIFICATION
                if width == 1 and not self.made_linear and not binary:
                    raise self._unclear(f"its last operation ({self._operation}) is that of no logit")
                return Values.LOGITS, many
            case _:
                if self.known.source == _BY_OPTION or self.expected:
                    return Values.LOGITS, many
                raise self._unclear("what made it could not be traced")

    @property
    def made_linear(self) -> bool:
        return self.made is not None and self.made.linear

    @property
    def _is_probability(self) -> bool:
        return self.range in (
            Range.PROBABILITIES,
            Range.DISTRIBUTION,
            Range.LOG_PROBABILITIES,
            Range.LOG_DISTRIBUTION,
        )

    def _unclear(self, why: str) -> XaiError:
        return XaiError(
            f"whether the model's output is logits or probabilities cannot be told: {why}",
            hint="say it with --task (task=), for example classification:logits, classification:probabilities, "
            "binary:logits or regression",
        )

    @property
    def _operation(self) -> str:
        return self.made.operation.strip("_") if self.made is not None else "an unknown operation"

    def _places(self, axis: int | None) -> int:
        total = 1
        for length in self.shape if axis is None else _without(self.shape, axis):
            total *= length
        return total

    def _in_words(self, task: Task, n: int, reason: str, head: Head | None = None) -> str:
        if head is None:
            return f"read as regression, {'one value' if n == 1 else f'{n} values'} a sample: {reason}"
        by = {
            Values.LOGITS: "logits",
            Values.PROBABILITIES: "probabilities",
            Values.LOG_PROBABILITIES: "log-probabilities",
        }[head.values]
        made = f" (the model ends in {self._operation})" if self.made is not None and not self.known.are_logits else ""
        what = f"one number, the {by.removesuffix('s') if by != 'probabilities' else 'probability'} of class 1"
        numbers = what if head.single else f"{by} of {n} classes"
        if head.independent and not head.single and task is not Task.MULTILABEL:
            numbers += ", each for itself, so that they need not sum to one"
        name = str(task).replace("_", " ")
        return f"read as {name}, {numbers}{made}: {reason}"


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    kept = list(shape)
    del kept[axis]
    return tuple(kept)
