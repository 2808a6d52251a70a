"""safetensors files and Hugging Face folders: plain tensors with facts beside them, no code of the folder run."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaicli.checkpoint.archive import refused
from xaicli.checkpoint.facts import CheckpointFacts, described
from xaicli.checkpoint.files import shards
from xaicli.checkpoint.package import TensorFacts
from xaicli.checkpoint.weights import listed
from xaicli.errors import DamagedFileError, XaiError
from xaicli.files import write_whole

_HEADER_KEY = "xai"
_BITS = {"BOOL": 8, "BF16": 16, "E8M0": 8}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, of an index's files, or of those of a folder, on the CPU.

    Raises:
        DamagedFileError: A file is not complete, or contradicts itself.
        XaiError: safetensors is not installed, or a file of the index is missing.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise _not_installed(path) from error
    tensors: dict[str, torch.Tensor] = {}
    for file in _files(path):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise DamagedFileError(f"{file} is no whole safetensors file: {error}", hint="copy it again") from error
    return tensors


def describe_tensors(path: Path, facts: CheckpointFacts) -> tuple[tuple[TensorFacts, ...], CheckpointFacts]:
    """Names, shapes and dtypes of what `read_tensors` reads, and the facts in its header, without reading the tensors.

    Raises:
        DamagedFileError: A file is not complete, or contradicts itself.
        XaiError: safetensors is not installed, or a file of the index is missing.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _not_installed(path) from error
    tensors: list[TensorFacts] = []
    for path_of_one in _files(path):
        try:
            with safe_open(path_of_one, "pt") as file:
                header = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                tensors += [_tensor(name, part.get_dtype(), part.get_shape()) for name, part in slices.items()]
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise DamagedFileError(
                f"{path_of_one} is no whole safetensors file: {error}", hint="copy it again"
            ) from error
        facts = _with_header(facts, header)
    return tuple(tensors), facts


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return shards(path) if any(path.glob("*.index.json")) else sorted(path.glob("*.safetensors"))
    return shards(path) if path.suffix == ".json" else [path]


def write_tensors(path: Path, weights: Mapping[str, torch.Tensor], facts: CheckpointFacts) -> Path:
    """Write weights and facts as a safetensors file that appears complete or not at all.

    Raises:
        XaiError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise _not_installed(path) from error
    # The format has no shared storage: tied weights are written twice.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    header = {"format": "pt", _HEADER_KEY: json.dumps(_description(facts))}
    return write_whole(path, save(plain, metadata=header), durable=True)


def _description(facts: CheckpointFacts) -> dict[str, object]:
    names, shapes, dtypes = facts.input_names or (), facts.input_shapes or (), facts.input_dtypes or ()
    complete = len(names) == len(shapes) == len(dtypes)
    return {
        "inputs": [
            {"name": name, "shape": shape, "dtype": dtype}
            for name, shape, dtype in (zip(names, shapes, dtypes, strict=True) if complete else ())
        ],
        **{
            key: getattr(facts, key)
            for key in (
                "label_names",
                "input_range",
                "mean",
                "std",
                "epoch",
                "step",
                "task",
                "text",
                "pad_token",
                "arch",
            )
        },
    }


def _with_header(facts: CheckpointFacts, header: Mapping[str, str]) -> CheckpointFacts:
    if (text := header.get(_HEADER_KEY)) is None:
        return facts
    try:
        return described(json.loads(text), facts)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{facts.path} has a header that cannot be read: {error}") from error


def _tensor(name: str, dtype: str, shape: list[int]) -> TensorFacts:
    n_elements = 1
    for length in shape:
        n_elements *= length
    bits = _BITS.get(dtype) or int("".join(c for c in dtype.split("_")[0] if c.isdigit())[:2])
    return TensorFacts(name, dtype.lower(), tuple(shape), n_elements * bits // 8)


def _not_installed(path: Path) -> XaiError:
    return XaiError(f"{path} needs safetensors", hint="pip install 'xaicli[saliency]'")


_OTHER_INPUTS = re.compile(r"(_ids|_mask|_values|_features|_pos|^bbox)$")
"""What transformers calls inputs; the rest of a forward's arguments are labels, states and switches."""


class LogitsOf(nn.Module):
    """A transformers model that answers with its logits only.

    Args:
        model: A model whose output has `logits`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.input_name: str = getattr(model, "main_input_name", "input_ids")

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """The logits of its main input, or of several by name, (batch, classes) where the model classifies."""
        main = dict(zip((self.input_name,), inputs, strict=True)) if inputs else {}
        output = self.model(**main, **named)
        logits = getattr(output, "logits", None)
        return logits if isinstance(logits, torch.Tensor) else output[0]


def load_folder(
    path: Path, facts: CheckpointFacts, pickled: Mapping[str, torch.Tensor] | None = None
) -> tuple[nn.Module, CheckpointFacts]:
    """Load a model folder with the class its configuration names, out of transformers' own.

    Args:
        path: The folder.
        facts: What is known of it.
        pickled: Its weights, where `torch.save` wrote them and not safetensors.

    Raises:
        RefusedError: It brings code of its own, or pickled weights only.
        DamagedFileError: A file of it is not complete.
        XaiError: transformers is missing, or cannot load the folder, or the folder lacks weights of the model.
    """
    config = _admitted(path, pickled is not None)
    try:
        import transformers
        from safetensors import SafetensorError

        from xaicli.checkpoint.exported import first_line
    except ImportError as error:
        raise XaiError(f"{path} needs transformers", hint="pip install 'xaicli[transformers]'") from error
    name = str((config.get("architectures") or [""])[0])
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise XaiError(f"{path}: transformers {transformers.__version__} has no model class {name!r}")
    talk: Any = transformers.utils.logging
    loudness = talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    load: Any = kind.from_pretrained  # whose types leave the second result out
    where: Any = path
    given: dict[str, Any] = {"use_safetensors": True}
    if pickled is not None:
        kind_of_config: Any = kind.config_class
        # Its configuration through transformers, its weights through xaicli's own reader, which runs nothing.
        where, given = None, {"config": kind_of_config.from_dict(config), "state_dict": dict(pickled)}
    try:
        model, found = load(
            where,
            local_files_only=True,
            trust_remote_code=False,
            **given,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except SafetensorError as error:
        raise DamagedFileError(f"{path} holds no whole safetensors: {error}", hint="copy it again") from error
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise XaiError(
            f"{path}: transformers cannot load it: {first_line(error)}",
            hint=f"--arch module:factory takes its weights without transformers; of another version: "
            f"this is transformers {transformers.__version__}, the folder was written by "
            f"{config.get('transformers_version') or 'one that it does not name'}",
        ) from error
    finally:
        talk.set_verbosity(loudness)
        talk.enable_progress_bar()
    facts = _with_folder_facts(facts, path, config)
    facts = replace(facts, notes=(*facts.notes, *_all_found(found, path)))
    logits = LogitsOf(model)
    others = [name for name in inspect.signature(model.forward).parameters if _OTHER_INPUTS.search(name)]
    return logits, replace(
        facts,
        input_names=(logits.input_name,),
        optional_inputs=tuple(name for name in others if name != logits.input_name),
    )


def _all_found(found: Mapping[str, Any], path: Path) -> Iterator[str]:
    """What transformers had no use for; it makes up what it does not find, and that is refused.

    Raises:
        XaiError: A weight of the model is not in the folder, or has another shape there.
    """
    missing = sorted(found["missing_keys"])
    reshaped = sorted(f"{name} {tuple(given)} for {tuple(own)}" for name, given, own in found["mismatched_keys"])
    if missing or reshaped:
        parts = (("missing", missing), ("of another shape", reshaped))
        raise XaiError(
            f"the weights of {path} do not fit the model its config.json names: {len(missing)} missing, "
            f"{len(reshaped)} of another shape",
            hint="; ".join(f"{title}: {listed(names)}" for title, names in parts if names)
            + ". transformers would make up values for them: is it the folder of the trained model?",
        )
    if left := sorted(found["unexpected_keys"]):
        yield f"left out {len(left)} weights that the model has no place for: {listed(left)}"


def describe_folder(path: Path, facts: CheckpointFacts) -> tuple[tuple[TensorFacts, ...], CheckpointFacts]:
    """The tensors and facts of a model folder, read without transformers.

    Raises:
        RefusedError: It brings code of its own, or pickled weights only.
    """
    config = _admitted(path)
    files = sorted(path.glob("*.safetensors"))
    tensors = tuple(tensor for file in files for tensor in describe_tensors(file, facts)[0])
    return tensors, _with_folder_facts(facts, path, config)


def describe_pickled_folder(path: Path, facts: CheckpointFacts) -> CheckpointFacts | None:
    """The facts of a model folder whose weights `torch.save` wrote, read without transformers.

    Args:
        path: The folder.
        facts: What is known of it.

    Returns:
        None where its configuration names no class to load it with, or code of its own.
    """
    config = _json(path / "config.json") if (path / "config.json").is_file() else {}
    if not config.get("architectures") or _names_code(config):
        return None
    return _with_folder_facts(facts, path, config)


def _admitted(path: Path, pickled: bool = False) -> dict[str, Any]:
    config = _json(path / "config.json")
    if _names_code(config):
        raise refused(
            path,
            "a configuration that fetches code or weights",
            hint="build it yourself: --arch module:factory",
        )
    if not pickled and not any(path.glob("*.safetensors")):
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
