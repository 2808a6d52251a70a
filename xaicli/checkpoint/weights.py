"""Weights: finding the state dicts in what a training script saved, and choosing one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xaicli.checkpoint.archive import refused
from xaicli.checkpoint.pickles import Inert
from xaicli.checkpoint.tensors import AnyTensor, OddTensor, StoredTensor, plain_array, values_of
from xaicli.errors import XaiError, unknown

_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
_AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model", "shadow")
_PREFIXES = ("module.", "_forward_module.")
_TRANSPARENT = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What wrappers of single parts leave inside keys."""
_OTHER_STATE = re.compile(r"optim|sched|scaler|(^|_)rng|random|sampler", re.IGNORECASE)
"""Names of what is no network's."""
_QUANTISED = re.compile(r"torch\.(ao\.)?nn\.(intrinsic\.)?quantized\..*\.(linear|conv|rnn|embedding_ops)\w*$")
"""Where the classes of layers are that keep their weights packed."""
_AGAIN = "save it again as an ordinary tensor"
GATHER = (
    "gather it where it was trained, on all ranks: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True, cpu_offload=True))"
)
_EXTRA = "_extra_state"
_DEEPEST = 3
_SHOWN = 6

StateDict = dict[str, torch.Tensor]

Tensors = dict[str, Any]
"""A state dict whose tensors may not have been read."""


@dataclass(frozen=True)
class Found:
    """Weights in a checkpoint.

    Attributes:
        key: Where they stand, dotted; "" for the content itself.
        tensors: By their names.
        module: The class of the pickled module they are part of; "" for a state dict.
        versions: What torch notes beside a state dict: the versions of its modules.
    """

    key: str
    tensors: Tensors
    module: str = ""
    versions: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Chosen:
    """The weights that were chosen.

    Attributes:
        key: Where they stood.
        weights: With what wrappers put into their keys stripped.
        module: The class of the pickled module they are part of; "" for a state dict.
        versions: The versions of the modules.
        notes: What else there was, one sentence each.
    """

    key: str
    weights: StateDict
    module: str = ""
    versions: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def choose_weights(content: object, path: Path, *, wanted: str | None = None) -> Chosen:
    """The state dict in the content of a checkpoint, read.

    Args:
        content: What the file holds: a state dict, a module, or a dict with some inside.
        path: What to call the file in errors.
        wanted: The key to take, dotted for a deeper one ("model.params") or a part of one ("student"), or "ema" for
            averaged weights of any name; without it the usual one, the trained weights before averaged ones.

    Raises:
        XaiError: There is none, several that could be meant, or none under the wanted key.
        RefusedError: The weights hold a tensor that is not read.
    """
    found = {each.key: each for each in found_weights(content)}
    if not found:
        raise XaiError(f"{path} holds no weights", hint=f"it holds {_described(content)}")
    if wanted is not None:
        return _read(_wanted(wanted, found, path), path)
    trained = [key for key in found if not _is_averaged(key)]
    plain = [key for key in trained if key.split(".")[-1] in ("", *_USUAL_KEYS)] or trained or list(found)
    if len(plain) > 1:
        raise _ambiguous(path, found)
    others = [key for key in found if key != plain[0]]
    notes = (f"took the weights under {plain[0]!r}; others by --weights: {listed(others)}",) if others else ()
    if plain == [""] and not found[""].module:
        left = dict.fromkeys(key for key, _, tensor in _deeper(content) if not isinstance(tensor, OddTensor))
        notes = (*notes, f"took the tensors at the top, and none below {listed(list(left))}") if left else notes
    return _read(found[plain[0]], path, notes)


def found_weights(content: object) -> list[Found]:
    """All sets of weights in a content: state dicts, and what pickled modules hold."""
    found = list(_sets(content, "", 0, set()))
    return found or _loose(content)


def find_module(content: object, key: str | None = None) -> nn.Module | None:
    """The model in an unpickled checkpoint: what stands under a key, else the content itself, or the only module in it.

    Args:
        content: What the file holds.
        key: As `Found.key`; None where it is not known.
    """
    if key:
        name, _, rest = key.partition(".")
        parts = enumerate(content) if isinstance(content, list | tuple) else getattr(content, "__dict__", {})
        held = dict(content if isinstance(content, Mapping) else parts)
        return find_module({str(each): part for each, part in held.items()}.get(name), rest)
    if isinstance(content, nn.Module) or key is not None:
        return content if isinstance(content, nn.Module) else None
    found = content if isinstance(content, Mapping) else {}
    usual = [found[key] for key in _USUAL_KEYS if isinstance(found.get(key), nn.Module)]
    modules = usual or [value for value in found.values() if isinstance(value, nn.Module)]
    return modules[0] if len(modules) == 1 or usual else None


def stripped(weights: Mapping[str, torch.Tensor]) -> StateDict:
    """Without what wrappers (`DataParallel`, `torch.compile`, FSDP) put into keys."""
    # AveragedModel keeps its counter beside the module it wraps.
    named = {key: value for key, value in weights.items() if key != "n_averaged"} or dict(weights)
    result = {_TRANSPARENT.sub(r"\1", key): value for key, value in named.items()}
    if len(result) < len(named):
        result = named
    # Only when all of the keys have it: a model may well have a part called "module".
    while prefix := next((p for p in _PREFIXES if result and all(key.startswith(p) for key in result)), ""):
        result = {key.removeprefix(prefix): value for key, value in result.items()}
    return result


def tensors_in(content: object) -> Iterator[tuple[str, AnyTensor]]:
    """All tensors in nested containers and objects with their dotted names, each container visited once."""
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor | StoredTensor | OddTensor):
            yield name, value
        elif id(value) not in seen and (items := list(_module_tensors(value).items()) or _items(value)):
            seen.add(id(value))
            waiting += [(f"{name}.{key}" if name else str(key), item) for key, item in reversed(items)]


def listed(names: Sequence[str]) -> str:
    """Names for a sentence, the first few of many."""
    shown = [name or "(the file itself)" for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def is_sharded(tensor: object) -> bool:
    """Whether a tensor's parts lie with several processes (`DTensor`, what `fully_shard` makes of parameters)."""
    return type(tensor).__name__ == "DTensor" and type(tensor).__module__.startswith("torch.distributed")


def broken(weights: Iterable[tuple[str, Any]], buffers: Iterable[tuple[str, Any]] = ()) -> str:
    """Which weights are NaN or infinite, as those of a training that diverged, with counts; "" where none are.

    Buffers may be infinite, as masks of attention are; so may what holds zeros besides and is not known to be a
    parameter.

    Args:
        weights: Names and tensors, read or not; those without floating-point values are passed over.
        buffers: Those that are known to be no parameters.
    """
    found = []
    for name, tensor, may in (*((n, x, False) for n, x in weights), *((n, x, True) for n, x in buffers)):
        if not isinstance(tensor, torch.Tensor | StoredTensor) or not tensor.dtype.is_floating_point:
            continue
        if isinstance(tensor, torch.Tensor) and (nn.parameter.is_lazy(tensor) or tensor.is_meta):
            continue
        values = values_of(tensor).detach()
        values = values.float() if values.dtype.itemsize == 1 else values  # nothing is asked of eight bits
        bad = ~values.isfinite()
        if may or (not isinstance(tensor, nn.Parameter) and bool(bad.any()) and not values[~bad].any()):
            bad = values.isnan()
        if n := int(bad.sum()):
            found.append(f"{name} ({n} of {values.numel()})")
    return f"{len(found)} of the weights hold NaN or infinite values: {listed(found)}" if found else ""


def _read(found: Found, path: Path, notes: tuple[str, ...] = ()) -> Chosen:
    for name, value in found.tensors.items():
        if isinstance(value, OddTensor):
            raise refused(path, f"a tensor {value.what} ({name!r})", hint=GATHER if "DTensor" in value.what else _AGAIN)
        if isinstance(value, Inert):
            raise _distributed(path, name, value)
    left = [name for name in found.tensors if name.endswith(_EXTRA)]
    if left:
        notes = (*notes, f"left out what modules keep beside their weights: {listed(left)}")
    read = {name: values_of(_tensor(value)) for name, value in found.tensors.items() if not name.endswith(_EXTRA)}
    return Chosen(found.key, stripped(read), found.module, found.versions, notes)


def _wanted(wanted: str, found: Mapping[str, Found], path: Path) -> Found:
    """What a user means: a key, the only one below it, `ema` for averaged weights of any name, or a part of one."""
    if wanted in found:
        return found[wanted]
    tops = _AVERAGED_KEYS if wanted == "ema" else (wanted,)
    below = [key for key in found if any(f".{top}." in f".{key}." for top in tops)]
    if len(below) == 1:
        return found[below[0]]
    parts: dict[str, Tensors] = {}
    for key, each in found.items():
        for top in tops:
            # Behind what wrappers put in front, as in "module.encoder_q.conv.weight".
            inside = re.compile(rf"((?:.*?\.)?{re.escape(top.removeprefix(f'{key}.'))})\.(.+)")
            for name, value in each.tensors.items():
                if match := inside.fullmatch(name):
                    parts.setdefault(f"{key}.{match[1]}".removeprefix("."), {})[match[2]] = value
    if len(parts) == 1 and not below:
        key, tensors = next(iter(parts.items()))
        return Found(key, tensors)
    error = unknown("weights", wanted, [key or "(the file itself)" for key in found], plural="weights")
    raise XaiError(f"{error.message} in {path}", hint=error.hint.replace("known weights", "--weights"))


def _ambiguous(path: Path, found: Iterable[str]) -> XaiError:
    return XaiError(f"{path} holds several sets of weights", hint=f"choose with --weights: {', '.join(found)}")


def _is_averaged(key: str) -> bool:
    return not set(key.split(".")).isdisjoint(_AVERAGED_KEYS)


def _distributed(path: Path, name: str, value: Inert) -> XaiError:
    hint = "gather them when saving (FSDP: StateDictType.FULL_STATE_DICT)"
    if (path.parent / ".metadata").is_file():
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path.parent} model.pt"
        hint += f", or convert the folder: {command}"
    return refused(path, f"weights of a class that is not read ({name!r}, a {value.name})", hint=hint)


def _sets(content: object, name: str, depth: int, seen: set[int]) -> Iterator[Found]:
    if id(content) in seen:
        return
    seen.add(id(content))
    if isinstance(content, Inert) and (weights := _of_module(content)):
        yield Found(name, weights, str(content.name))
        return
    if isinstance(content, Mapping) and _is_state_dict(content):
        versions = getattr(content, "_metadata", None)
        versions = versions if isinstance(versions, Mapping) else None
        yield Found(name, {str(k): v for k, v in content.items()}, versions=versions)
        return
    if _is_optimizer(content):
        return
    named = [(k, v) for k, v in content.items() if isinstance(k, str | int)] if isinstance(content, Mapping) else None
    for key, value in (_items(content) if named is None else named) if depth < _DEEPEST else ():
        if isinstance(value, Mapping | list | tuple | Inert) and not _OTHER_STATE.search(str(key)):
            yield from _sets(value, f"{name}.{key}" if name else str(key), depth + 1, seen)


def _items(value: object) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return _by_name(value)
    if isinstance(value, list | tuple | set):
        return list(enumerate(value))
    if isinstance(value, Inert):
        held = {**value.attributes, **value.entries} if value.attributes or value.entries else {}
        return _by_name(held) or list(enumerate((*value.arguments, *value.items)))
    return []


def _by_name(held: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """The entries of a dict; one under what is no name (an optimizer's states stand under tensors) by its position."""
    return [(key if isinstance(key, str | int) else place, value) for place, (key, value) in enumerate(held.items())]


def _is_optimizer(value: object) -> bool:
    """Whether it is an optimizer that was saved whole, or its state dict."""
    held = value.attributes if isinstance(value, Inert) else value
    return isinstance(held, Mapping) and {"state", "param_groups"} <= held.keys()


def _module_tensors(value: object) -> Tensors:
    return _of_module(value) if isinstance(value, Inert) else {}


def _of_module(module: Inert) -> Tensors:
    """The state dict of a pickled module, put together from what it holds; empty if it is none."""
    weights: Tensors = {}
    waiting: list[tuple[str, Inert]] = [("", module)]
    seen: set[tuple[int, str]] = set()
    while waiting:
        prefix, part = waiting.pop()
        parts = part.attributes
        if (id(part), prefix) in seen or len(seen) > 100_000:
            continue
        seen.add((id(part), prefix))
        scripted = part.name.module.startswith("__torch__")
        if not scripted and not {"_parameters", "_modules", "_buffers"} <= parts.keys():
            continue
        temporary = parts.get("_non_persistent_buffers_set")
        left_out = temporary if isinstance(temporary, set) else ()
        own = parts if scripted else {**_dict(parts["_parameters"]), **_dict(parts["_buffers"])}
        if _QUANTISED.match(part.name.module):
            own = {**own, "weight": OddTensor("that is quantised")}  # packed, in an object that is not read
        for key, value in own.items():
            if _is_tensor(value) and key not in left_out:
                weights[f"{prefix}{key}"] = value
        inner = parts if scripted else _dict(parts["_modules"])
        children = [(f"{prefix}{key}.", value) for key, value in inner.items() if isinstance(value, Inert)]
        waiting += reversed(children)
    return weights


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _loose(content: object) -> list[Found]:
    """The tensors of a dict that mixes them with other values, where there is no state dict proper."""
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and _is_tensor(value)}
    if not tensors:
        return []
    # A quantised layer keeps its weights inside a tuple: they are refused, not left out.
    odd = {f"{key}.{name}": value for key, name, value in _deeper(content) if isinstance(value, OddTensor)}
    return [Found("", tensors | odd)]


def _deeper(content: object) -> Iterator[tuple[str, str, AnyTensor]]:
    """The tensors below the entries of a dict that are none themselves: the entry, the name in it, the tensor."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if not (_is_tensor(value) or _is_optimizer(value) or _OTHER_STATE.search(str(key))):
            yield from ((str(key), name, tensor) for name, tensor in tensors_in(value))


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    tensors = [key for key, value in content.items() if _is_tensor(value) or _is_sharded(value)]
    # Extra state of a module is no tensor; a training dict's few loose tensors make no state dict.
    others = [key for key in content if key not in tensors and not str(key).endswith(_EXTRA)]
    return bool(tensors) and all(isinstance(key, str) for key in tensors) and not others


def _is_tensor(value: object) -> bool:
    if isinstance(value, torch.Tensor | StoredTensor | OddTensor):
        return True
    array = plain_array(value)
    return array is not None and array.dtype.kind in "biufc"


def _is_sharded(value: object) -> bool:
    return isinstance(value, Inert) and "tensor" in value.name.name.lower()


def _tensor(value: Any) -> StoredTensor | torch.Tensor:
    array = plain_array(value)
    if array is None:
        return value  # type: ignore[no-any-return]
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")))


def _described(content: object) -> str:
    if _is_optimizer(content):
        return "the state of an optimizer, not of a model"
    if isinstance(content, Mapping):
        parts = [f"{key} ({_kind(value)})" for key, value in content.items()]
        return "a dict of " + listed(parts) if parts else "an empty dict"
    return f"a {_kind(content)}"


def _kind(value: object) -> str:
    if isinstance(value, StoredTensor | OddTensor | torch.Tensor):
        return "tensor"
    if isinstance(value, Mapping) and _is_optimizer(value):
        return "state of an optimizer"
    if isinstance(value, Mapping) and isinstance(value.get("shadow_params"), list):
        return "averaged weights without names: load them where they were made, and save model.state_dict()"
    return str(value.name) if isinstance(value, Inert) else type(value).__name__
