"""What the shim's own checkpoint says of itself, read without believing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from xaicli.checkpoint.archive import damaged
from xaicli.checkpoint.facts import CheckpointFacts, Kind
from xaicli.checkpoint.save import FORMAT, FORMAT_VERSION
from xaicli.errors import XaiError

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class OwnContent:
    """The content of a checkpoint written by `save_checkpoint`.

    Attributes:
        facts: What it says of itself.
        graph: The bytes of its `.pt2` archive, or None.
        graph_error: Why there is no graph; "" when there is one.
        weights: Its state dict.
    """

    facts: CheckpointFacts
    graph: bytes | None
    graph_error: str
    weights: dict[str, torch.Tensor]


def is_own(content: object) -> bool:
    """Whether the content of a torch file is that of the shim's checkpoint."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def read_own(content: Mapping[str, Any], facts: CheckpointFacts) -> OwnContent:
    """Take the content apart.

    Raises:
        XaiError: It is of a newer version.
        DamagedFileError: A value is not of its type.
    """
    version = content.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise XaiError(
            f"{facts.path} has checkpoint version {version}; this xai reads up to {FORMAT_VERSION}",
            hint="upgrade with: pip install --upgrade xaicli",
        )
    facts = described(content, replace(facts, kind=Kind.XAI))
    try:
        graph = content["graph"]
        return OwnContent(
            facts=facts,
            graph=None if graph is None else bytes(graph.contiguous().numpy()),
            graph_error=str(content.get("graph_error") or ""),
            weights={str(key): value for key, value in content["state_dict"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(facts.path, f"{type(error).__name__}: {error}") from error


def described(content: Mapping[str, Any], facts: CheckpointFacts) -> CheckpointFacts:
    """Facts completed by a description, each value converted to its type.

    Raises:
        DamagedFileError: A value is not of its type.
    """
    try:
        inputs = [dict(entry) for entry in content.get("inputs") or ()]
        return replace(
            facts,
            label_names=_tuple(content.get("label_names"), str),
            input_names=_tuple([entry["name"] for entry in inputs], str) or None,
            input_shapes=tuple(_shape(entry["shape"]) for entry in inputs) or None,
            input_dtypes=_tuple([entry["dtype"] for entry in inputs], str) or None,
            input_range=_range(content.get("input_range")),
            mean=_tuple(content.get("mean"), float),
            std=_tuple(content.get("std"), _divisor),
            epoch=_integer(content.get("epoch")),
            step=_integer(content.get("step")),
            arch=None if content.get("arch") is None else str(content["arch"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(facts.path, f"{type(error).__name__}: {error}") from error


def _tuple(values: Any, convert: Callable[[Any], _Value]) -> tuple[_Value, ...] | None:
    return None if values is None else tuple(convert(value) for value in values)


def _range(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = values
    return float(low), float(high)


def _shape(values: Any) -> tuple[int, ...]:
    shape = tuple(int(value) for value in values)
    if any(length < 0 for length in shape):
        raise ValueError(f"{shape} is no shape")
    return shape


def _divisor(value: Any) -> float:
    number = float(value)
    if number == 0 or not math.isfinite(number):
        raise ValueError(f"{value} is no standard deviation")
    return number


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)
