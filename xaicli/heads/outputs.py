"""Which tensor of a model's output counts: the logits in a tuple, a dict, a transformers output, beside a loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from xaicli.errors import XaiError
from xaicli.heads.attributes import attributes, held

NAMED: tuple[str, ...] = ("logits", "out", "preds", "predictions", "pred", "prediction", "scores", "score")
NAMED += ("probs", "probabilities", "log_probs", "output", "outputs", "y_pred", "y_hat", "yhat")
"""What the numbers that count are called, the likeliest first."""

_OTHER = ("loss", "feature", "hidden", "embed", "attention", "aux", "cache", "past_key", "cross_", "mask", "pooler")
"""Parts of names of what is something else."""


def items_of(result: Any) -> Sequence[tuple[str, Any]]:
    """The parts of a model's output with their keys or positions; one part named "" for a plain tensor.

    What lies in a mapping of a mapping is named by both, "head.logits".
    """
    if isinstance(result, Tensor):
        return [("", result)]
    if isinstance(result, Mapping):
        found: list[tuple[str, Any]] = []
        for key, value in result.items():
            found += [(f"{key}.{name}", part) for name, part in items_of(value)] if isinstance(value, Mapping) else []
            found += [(str(key), value)]
        return found
    if is_dataclass(result):
        return [(field.name, getattr(result, field.name)) for field in fields(result)]
    if held(result, "_fields"):
        return list(zip(result._fields, result, strict=True))
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [(str(index), value) for index, value in enumerate(result)]
    return [(key, value) for key, value in attributes(result).items() if not key.startswith("_")]


def keys_of(result: Any) -> tuple[str, ...]:
    """The keys or positions of the floating-point tensors with a row a sample; ("",) for a plain tensor."""
    return tuple(name for name, value in items_of(result) if _answers(value))


def tensor_at(result: Any, where: str) -> Tensor:
    """The tensor of a key or position.

    Raises:
        XaiError: There is none, or it has no gradient because it holds whole numbers.
    """
    parts = items_of(result)
    found = dict(parts).get(where)
    if found is None and where.isdigit() and int(where) < len(parts):
        found = parts[int(where)][1]
    if not isinstance(found, Tensor):
        keys = [key for key in keys_of(result) if key]
        exist = f"it has: {', '.join(keys)}" if keys else f"it returns one {type(result).__name__}, without a name"
        raise XaiError(f"the model has no output {where!r}" if where else "the model's output is no tensor", hint=exist)
    if found.is_complex():
        raise XaiError(
            f"the model's output{where and f' {where}'} is complex: it is no score, probability or value",
            hint="let the model return real numbers: out.abs(), or torch.view_as_real(out)",
        )
    if not found.is_floating_point():
        raise XaiError(
            f"the model's output {where} has dtype {found.dtype}: whole numbers have no gradient and no probability",
            hint="choose another with --output-key, or let the model return scores instead of classes",
        )
    return found


def where_of(result: Any, classes: int | None = None) -> tuple[str, str]:
    """Where the numbers that count lie, and how that was told.

    Args:
        result: What the model returned.
        classes: How many classes there are, where that is known.

    Returns:
        The key or position, "" for the output itself, and a few words for the user.

    Raises:
        XaiError: There is no tensor, or it cannot be told which.
    """
    if isinstance(result, Tensor):
        return "", ""
    parts = items_of(result)
    answers = {name: value for name, value in parts if _answers(value)}
    by_name = not (isinstance(result, (list, tuple)) and not held(result, "_fields"))
    if by_name:
        last = {name.rpartition(".")[2]: name for name in reversed(answers)}
        if named := next((last[name] for name in NAMED if name in last), None):
            return named, f"its output {named!r}"
        answers = {n: v for n, v in answers.items() if not any(part in n.lower() for part in _OTHER)} or answers
    if not answers:
        raise XaiError(
            f"the model returns {type(result).__name__} without a floating-point tensor of one row a sample",
            hint="let it return its logits, or choose an output with --output-key",
        )
    if len(answers) > 1 and classes is not None:
        fitting = [n for n, v in answers.items() if v.ndim > 1 and classes in (v.shape[1], v.shape[-1])]
        if len(fitting) == 1:
            return fitting[0], f"its output {fitting[0]}, the one of {classes} classes"
    if len(answers) == 1:
        name = next(iter(answers))
        return name, f"its output {name!r}" if by_name else f"item {name} of its output"
    if by_name:
        raise XaiError(
            f"the model returns {', '.join(answers)}: which of them are its scores cannot be told",
            hint=f"choose one with --output-key (output=), for example {next(iter(answers))}",
        )
    # (loss of each sample, logits): what has an axis of classes, where anything has; then (logits, whatever else).
    wide = [n for n, v in answers.items() if v.ndim > 1] or list(answers)
    return wide[0], f"item {wide[0]} of its output of {len(parts)}"


_STARTS, _ENDS = (
    re.compile(r"(^|\.)start_(positions_)?(logits|scores)$"),
    re.compile(r"(^|\.)end_(positions_)?(logits|scores)$"),
)


def refuse_spans(result: Any, *, known: bool = False) -> None:
    """Where an answer starts and ends in a text (extractive question answering) is a place, and no class.

    Args:
        result: What the model returned.
        known: Whether the model's class was made for such answers, so that a pair without names is one.

    Raises:
        XaiError: The model gives the logits of both.
    """
    parts = [(name, part) for name, part in items_of(result) if _answers(part)]
    start = next((name for name, _ in parts if _STARTS.search(name)), None)
    end = next((name for name, _ in parts if _ENDS.search(name)), None)
    if known and start is None and not isinstance(result, Mapping):
        flat = [(name, part) for name, part in parts if part.ndim == 2]
        if len(flat) > 1 and flat[0][1].shape == flat[1][1].shape:
            (start, _), (end, _) = flat[:2]
    if start is None or end is None:
        return
    of = f"out[{start}]" if start.isdigit() else f"out[{start!r}]" if isinstance(result, dict) else f"out.{start}"
    raise XaiError(
        f"the model answers where in the text an answer starts ({start}) and ends ({end}): a number a place, no class",
        hint=f"explain one of them, in Python by a function: target=lambda out: {of}.max(1).values; or at one place: "
        f"--task regression --output-key {start} --target 7 for the place 7",
    )


def misplaced(one: Tensor, other: Tensor, n: int, fewer: int, what: str) -> XaiError | None:
    """What is wrong with the axis of the samples, as told by the shapes for n samples and for fewer of them.

    Args:
        one: What n samples gave.
        other: What fewer gave.
        n: How many samples there were.
        fewer: How many there were of the other.
        what: What it is, in words.
    """
    if one.ndim != other.ndim or not one.ndim or n == fewer:
        return None
    sizes = list(zip(one.shape, other.shape, strict=True))
    follows = [axis for axis, pair in enumerate(sizes) if pair == (n, fewer)]
    shape = ", ".join("N" if axis in follows else str(pair[0]) for axis, pair in enumerate(sizes))
    if follows == [0]:
        return None
    if 0 in follows:
        return XaiError(
            f"{what} has the shape ({shape}) for N samples: each is held against the others of its batch, "
            "so that its answer depends on them",
            hint="one number a sample is a function of it: target=lambda out: out.diagonal() (of one of several "
            "outputs: out['NAME'].diagonal()); a collector of your own for metrics",
        )
    if follows:
        return XaiError(
            f"{what} has the samples on axis {follows[0]}, not on its first: its shape is ({shape}) for N samples",
            hint=f"outputs need the batch as their first axis: .transpose(0, {follows[0]}) at the end of forward",
        )
    return XaiError(
        f"{what} has {sizes[0][0]} rows for {n} samples and {sizes[0][1]} for {fewer}: no row is one sample's",
        hint="outputs need the batch as their first axis",
    )


def depends_on_mates(part: str, module: Any = None) -> XaiError:
    """That a sample's answer depends on the others of its batch, and on what in the model.

    Args:
        part: The name of the part that does it; "" where that is not known.
        module: That part.
    """
    kind, said = type(module).__name__.lower(), part or "something in forward"
    if getattr(module, "batch_first", True) is False:
        said = f"{part} has batch_first=False and reads the samples as steps"
        hint = "samples are the first axis of an input: batch_first=True, or transpose in forward"
    elif "norm" in kind and (module.training or getattr(module, "running_mean", "") is None):
        said = f"{part} uses statistics of the batch"
        hint = "batch norm with track_running_stats=True, or group norm, answers each sample for itself"
    elif ".quantized" in type(module).__module__:
        said = f"{part} is quantised by the range of the whole batch"
        hint = "give the model as it was before it was quantised dynamically"
    else:
        said = f"{said} answers otherwise for it beside other samples"
        hint = (
            "is something computed over the first axis, that of the samples: statistics of the batch, attention, a "
            "comparison of samples, a graph whose nodes they are? each sample is to have its answer for itself alone"
        )
    return XaiError(f"the model's answer for a sample depends on the other samples of its batch: {said}", hint=hint)


def _answers(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) and value.ndim > 0
