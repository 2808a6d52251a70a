"""What is known of a checkpoint beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


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
        input_shapes: The shape of one sample of each input, without the batch axis; None where an axis varies.
        input_dtypes: NumPy's name of each input's dtype.
        input_range: The least and the greatest value an input can have, in the model's own units.
        mean: Per channel, subtracted from a picture in [0, 1].
        std: Per channel, divided by after that.
        epoch: The epoch after which it was saved.
        step: The global training step at which it was saved.
        static_batch: The one batch size a graph accepts; None when any will do.
        arch: The `module:factory` its maker used. For a hint only: nothing is ever imported because of it.
        notes: What was left out or changed in loading, one sentence each.
    """

    kind: Kind
    path: Path
    sha256: str
    label_names: tuple[str, ...] | None = None
    input_names: tuple[str, ...] | None = None
    input_shapes: tuple[tuple[int, ...], ...] | None = None
    input_dtypes: tuple[str, ...] | None = None
    input_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    epoch: int | None = None
    step: int | None = None
    static_batch: int | None = None
    arch: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, on the device asked for, and the facts of its file."""

    model: nn.Module
    facts: CheckpointFacts
