"""Hugging Face model folders: `config.json` and safetensors, loaded by transformers, no code of the folder run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaicli.checkpoint.archive import refused
from xaicli.checkpoint.facts import CheckpointFacts
from xaicli.checkpoint.package import TensorFacts
from xaicli.checkpoint.tensor_file import describe_tensors
from xaicli.errors import XaiError


class LogitsOf(nn.Module):
    """A transformers model that answers with its logits only.

    Args:
        model: A model whose output has `logits`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.input_name: str = getattr(model, "main_input_name", "input_ids")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The logits of one input, (batch, classes) where the model classifies."""
        output = self.model(**{self.input_name: inputs})
        logits = getattr(output, "logits", None)
        return logits if isinstance(logits, torch.Tensor) else output[0]


def load_folder(path: Path, facts: CheckpointFacts) -> tuple[nn.Module, CheckpointFacts]:
    """Load a model folder with the class its configuration names, out of transformers' own.

    Raises:
        RefusedError: It brings code of its own, or pickled weights only.
        XaiError: transformers is missing, or cannot load the folder.
    """
    config = _admitted(path)
    try:
        import transformers
    except ImportError as error:
        raise XaiError(f"{path} needs transformers", hint="pip install 'xaicli[transformers]'") from error
    name = str((config.get("architectures") or [""])[0])
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise XaiError(f"{path}: transformers {transformers.__version__} has no model class {name!r}")
    talk: Any = transformers.utils.logging
    talk.disable_progress_bar()
    try:
        model = kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise XaiError(f"{path}: transformers cannot load it: {str(error).splitlines()[0]}") from error
    finally:
        talk.enable_progress_bar()
    facts = _with_folder_facts(facts, path, config)
    return LogitsOf(model), replace(facts, input_names=(getattr(model, "main_input_name", "input"),))


def describe_folder(path: Path, facts: CheckpointFacts) -> tuple[tuple[TensorFacts, ...], CheckpointFacts]:
    """The tensors and facts of a model folder, read without transformers.

    Raises:
        RefusedError: It brings code of its own, or pickled weights only.
    """
    config = _admitted(path)
    files = sorted(path.glob("*.safetensors"))
    tensors = tuple(tensor for file in files for tensor in describe_tensors(file, facts)[0])
    return tensors, _with_folder_facts(facts, path, config)


def _admitted(path: Path) -> dict[str, Any]:
    config = _json(path / "config.json")
    if _names_code(config):
        raise refused(
            path,
            "a configuration that fetches code or weights",
            hint="build it yourself: --arch module:factory",
        )
    if not any(path.glob("*.safetensors")):
        raise refused(path, "no safetensors", hint="save it again with save_pretrained(folder)")
    return config


def _with_folder_facts(facts: CheckpointFacts, path: Path, config: Mapping[str, Any]) -> CheckpointFacts:
    labels = config.get("id2label") or {}
    processor = _json(path / "preprocessor_config.json") if (path / "preprocessor_config.json").is_file() else {}
    mean, std = processor.get("image_mean"), processor.get("image_std")
    size, channels = config.get("image_size"), config.get("num_channels")
    return replace(
        facts,
        label_names=tuple(str(labels[key]) for key in sorted(labels, key=int)) or None,
        input_shapes=((int(channels), int(size), int(size)),) if size and channels else None,
        mean=tuple(map(float, mean)) if isinstance(mean, list) else None,
        std=tuple(map(float, std)) if isinstance(std, list) else None,
        arch=str((config.get("architectures") or [""])[0]) or None,
    )


def _names_code(config: object) -> bool:
    """Whether a configuration, or a part of it, has transformers import the folder's code or ask the network."""
    if isinstance(config, dict):
        named = "auto_map" in config or config.get("use_pretrained_backbone") or config.get("trust_remote_code")
        return bool(named) or any(_names_code(value) for value in config.values())
    return isinstance(config, list) and any(_names_code(value) for value in config)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise XaiError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise XaiError(f"{path} is no JSON object")
    return content
