"""What is known of a checkpoint beside its weights, and what the shim's own says, read without believing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xaicli.checkpoint.archive import damaged
from xaicli.errors import XaiError

if TYPE_CHECKING:
    from torch import nn

FORMAT = "xai-checkpoint"
FORMAT_VERSION = 1

_Value = TypeVar("_Value")

_MOST_CHANNELS = 4


class Kind(StrEnum):
    """What a checkpoint file is, told from its content and not from its name."""

    XAI = "xai"
    """Written by `save_checkpoint`: weights, facts and, where the export worked, a graph."""
    STATE_DICT = "state_dict"
    TRAINING_DICT = "training_dict"
    LIGHTNING = "lightning"
    SAFETENSORS = "safetensors"
    HUGGING_FACE = "hugging_face"
    """A folder with `config.json` and safetensors."""
    EXPORTED = "exported"
    """A `.pt2` archive made by `torch.export.save`."""
    TORCHSCRIPT = "torchscript"
    PICKLED_MODULE = "pickled_module"


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says of itself and of the model's inputs; None where it says nothing.

    Attributes:
        kind: What the file is.
        path: The file or folder as the user named it.
        sha256: Of the file's bytes, hexadecimal; of `config.json` and the weights together for a folder.
        label_names: The names of the outputs, in order.
        input_names: The inputs of the model in call order.
        optional_inputs: What the model takes besides, where there is any: masks, say.
        input_shapes: The shape of one sample of each input, without the batch axis; None where an axis varies.
        input_dtypes: NumPy's name of each input's dtype.
        input_range: The least and the greatest value an input can have, in the model's own units.
        mean: Per channel, subtracted from a picture in [0, 1].
        std: Per channel, divided by after that.
        epoch: The epoch after which it was saved.
        step: The global training step at which it was saved.
        static_batch: The one batch size a graph accepts; None when any will do.
        task: What its outputs mean, a member of `Task`.
        text: How a model of texts answers, a member of `Text`.
        pad_token: The token that fills short texts up.
        arch: The `module:factory` its maker used. For a hint only: nothing is ever imported because of it.
        notes: What was left out or changed in loading, one sentence each.
    """

    kind: Kind
    path: Path
    sha256: str
    label_names: tuple[str, ...] | None = None
    input_names: tuple[str, ...] | None = None
    optional_inputs: tuple[str, ...] = ()
    input_shapes: tuple[tuple[int, ...], ...] | None = None
    input_dtypes: tuple[str, ...] | None = None
    input_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    epoch: int | None = None
    step: int | None = None
    static_batch: int | None = None
    task: str | None = None
    text: str | None = None
    pad_token: int | None = None
    arch: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, on the device asked for, and the facts of its file."""

    model: nn.Module
    facts: CheckpointFacts

    @property
    def channels(self) -> int | None:
        """How many channels of a picture the first convolution reads, where these are a picture's: at most 4."""
        from torch import nn

        first = next((part for part in self.model.modules() if isinstance(part, nn.Conv2d)), None)
        return first.in_channels if first is not None and 1 <= first.in_channels <= _MOST_CHANNELS else None


@dataclass(frozen=True)
class OwnContent:
    """The content of a checkpoint written by `save_checkpoint`.

    Attributes:
        facts: What it says of itself.
        graph: The bytes of its `.pt2` archive, or None.
        graph_error: Why there is no graph; "" when there is one.
        weights: Its state dict, whose tensors may not have been read.
    """

    facts: CheckpointFacts
    graph: bytes | None
    graph_error: str
    weights: dict[str, Any]


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
    from xaicli.checkpoint.tensors import values_of

    facts = described(content, replace(facts, kind=Kind.XAI))
    try:
        graph = content["graph"]
        return OwnContent(
            facts=facts,
            graph=None if graph is None else bytes(values_of(graph).contiguous().numpy()),
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
            task=None if content.get("task") is None else str(content["task"]),
            text=None if content.get("text") is None else str(content["text"]),
            pad_token=_integer(content.get("pad_token")),
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
