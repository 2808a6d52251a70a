"""Weights: finding the state dict in what a training script saved, and matching its keys to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaicli.checkpoint.refusal import refused
from xaicli.errors import XaiError, unknown

_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
_AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model", "shadow")
_PREFIXES = ("module.", "_forward_module.")
_TRANSPARENT = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What wrappers of single parts leave inside keys."""

_SHOWN = 6

StateDict = dict[str, torch.Tensor]


def find_weights(content: object, path: Path, *, wanted: str | None = None) -> tuple[StateDict, str]:
    """The state dict in the content of a checkpoint.

    Args:
        content: What the file holds: a state dict, or a dict with one inside, at most two dicts deep.
        path: What to call the file in errors.
        wanted: The key to take, dotted for a deeper one ("model.params"), or "ema" for averaged weights of any name;
            without it the usual ones are tried, the trained weights before averaged ones.

    Returns:
        The state dict with wrapper prefixes stripped, and the key it stood under ("" for the content itself).

    Raises:
        XaiError: There is none, or none under the wanted key.
    """
    found = dict(_state_dicts(content, "", 0)) or _loose(content)
    if not found:
        raise XaiError(f"{path} holds no weights", hint=f"it holds {_described(content)}")
    if wanted is not None:
        key = _matching(wanted, list(found), path)
        return stripped(found[key]), key
    for key in ("", *_USUAL_KEYS, *_AVERAGED_KEYS):
        if key in found:
            return stripped(found[key]), key
    if len(found) > 1:
        raise XaiError(f"{path} holds several sets of weights", hint=f"choose with --weights: {', '.join(found)}")
    key, weights = next(iter(found.items()))
    return stripped(weights), key


def find_module(content: object) -> nn.Module | None:
    """The model in an unpickled checkpoint: the content itself, or the module under one of the usual keys."""
    if isinstance(content, nn.Module):
        return content
    found = content if isinstance(content, Mapping) else {}
    return next((found[key] for key in _USUAL_KEYS if isinstance(found.get(key), nn.Module)), None)


def weight_sets(content: object) -> list[str]:
    """The keys under which a checkpoint holds weights, "" for the content itself."""
    return [key for key, _ in _state_dicts(content, "", 0)]


def stripped(weights: Mapping[str, torch.Tensor]) -> StateDict:
    """Without what wrappers (`DataParallel`, `torch.compile`, FSDP) put into keys."""
    # AveragedModel keeps its counter beside the module it wraps.
    named = {key: value for key, value in weights.items() if key != "n_averaged"} or dict(weights)
    result = {_TRANSPARENT.sub(r"\1", key): value for key, value in named.items()}
    # Only when all of the keys have it: a model may well have a part called "module".
    while prefix := next((p for p in _PREFIXES if result and all(key.startswith(p) for key in result)), ""):
        result = {key.removeprefix(prefix): value for key, value in result.items()}
    return result


def check_storage(content: object, path: Path) -> None:
    """Refuse tensors that claim more memory than the file holds for them.

    Raises:
        RefusedError: A tensor is larger than its storage, or of a layout that needs no storage.
    """
    for name, tensor in tensors_in(content):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
            raise refused(path, f"a tensor that is not dense ({name!r}, {tensor.layout})")
        if tensor.is_meta:
            raise refused(path, f"a tensor without values ({name!r})", hint="save it again from a real device")
        claimed = tensor.numel() * tensor.element_size()
        stored = tensor.untyped_storage().nbytes()
        if claimed > stored:
            raise refused(path, f"a tensor larger than its storage ({name!r}: {claimed:,} of {stored:,} bytes)")


def tensors_in(content: object) -> Iterable[tuple[str, torch.Tensor]]:
    """All tensors in nested dicts, lists and tuples with their dotted names, each container visited once."""
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
            waiting += [(f"{name}.{key}" if name else str(key), item) for key, item in reversed(items)]


def model_with(weights: StateDict, build: Callable[[], nn.Module], path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a model and give it the weights, all of them and nothing else.

    It is built without memory (on the meta device) where its code allows that.

    Returns:
        The model in evaluation mode, and what was left out of the weights.

    Raises:
        XaiError: Keys or shapes differ; the hint lists them.
    """
    try:
        with torch.device("meta"):
            model = build()
    except (RuntimeError, NotImplementedError):  # it computes with its weights while it is being built
        model = build()
    fitting, notes = _fitting(weights, model.state_dict(), path)
    model.load_state_dict(fitting, strict=True, assign=True)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        model = build()  # a buffer that no file keeps has to be computed
        model.load_state_dict(fitting, strict=True)
    return model.eval(), notes


def _fitting(weights: StateDict, own: Mapping[str, Any], path: Path) -> tuple[StateDict, tuple[str, ...]]:
    """The weights under the model's own keys and in its dtypes."""
    notes: tuple[str, ...] = ()
    if set(weights) != set(own) and (part := _part_of(weights, own)):
        prefix, inner = part
        left = [key for key in weights if not key.startswith(prefix)]
        notes = (f"took the weights below {prefix!r}" + (f", without {listed(left)}" if left else ""),)
        weights = inner
    _check_fit(weights, own, path)
    return {key: value.to(own[key].dtype) if _is_tensor(own[key]) else value for key, value in weights.items()}, notes


def _part_of(weights: StateDict, own: Mapping[str, Any]) -> tuple[str, StateDict] | None:
    """The one part of the weights that is the whole of the model: what Lightning keeps below `model.`, say."""
    for prefix in sorted({key.split(".")[0] + "." for key in weights if "." in key}):
        inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if set(inner) == set(own):
            return prefix, inner
    return None


def _check_fit(weights: StateDict, own: Mapping[str, Any], path: Path) -> None:
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    reshaped = [
        f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in weights and _is_tensor(own[key]) and weights[key].shape != own[key].shape
    ]
    if missing or unexpected or reshaped:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        named = "; ".join(f"{title}: {listed(names)}" for title, names in parts if names)
        raise XaiError(
            f"the weights of {path} do not fit the model: {len(missing)} missing, {len(unexpected)} unexpected, "
            f"{len(reshaped)} of another shape",
            hint=f"{named}. Is --arch (with --arch-args) the one it was trained with?",
        )


def listed(names: Sequence[str]) -> str:
    """Names for a sentence, the first few of many."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _matching(wanted: str, keys: list[str], path: Path) -> str:
    """The key a user means: its full name, the only one below it, or `ema` for averaged weights of any name."""
    if wanted in keys:
        return wanted
    tops = _AVERAGED_KEYS if wanted == "ema" else (wanted,)
    found = [key for key in keys if any(f"{key}.".startswith(f"{top}.") for top in tops)]
    if len(found) != 1:
        error = unknown("weights", wanted, [key or "(the file itself)" for key in keys], plural="weights")
        raise XaiError(f"{error.message} in {path}", hint=error.hint.replace("known weights", "--weights"))
    return found[0]


def _state_dicts(content: object, name: str, depth: int) -> Iterable[tuple[str, StateDict]]:
    if not isinstance(content, Mapping):
        return
    if _is_state_dict(content):
        yield name, {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        return
    for key, value in content.items():
        if isinstance(key, str) and depth < 2 and "optim" not in key.lower():
            yield from _state_dicts(value, f"{name}.{key}" if name else key, depth + 1)


def _loose(content: object) -> dict[str, StateDict]:
    """The tensors of a dict that mixes them with other values, where there is no state dict proper."""
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, torch.Tensor)}
    return {"": tensors} if tensors else {}


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    tensors = [key for key, value in content.items() if isinstance(value, torch.Tensor)]
    # Extra state of a module is no tensor; a training dict's few loose tensors make no state dict.
    others = [key for key in content if key not in tensors and not str(key).endswith("_extra_state")]
    return bool(tensors) and all(isinstance(key, str) for key in tensors) and not others


def _described(content: object) -> str:
    if isinstance(content, Mapping):
        return "a dict of " + listed([f"{key} ({type(value).__name__})" for key, value in content.items()])
    return f"a {type(content).__name__}"
