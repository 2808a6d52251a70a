"""What the name of kept maps depends on: everything that a model's code reaches, and nothing of the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from xaicli.attribution.fingerprint import fingerprint

_HELPER = """
import collections, functools, types
import numpy as np
import torch

def times(x, by):
    return x * by

class Settings:
    pass

class Times:
    def __call__(self, x):
        return x * {of_object}

settings = Settings()
settings.scale = {settings}
NESTED = types.SimpleNamespace(inner={{"scale": [{{"by": {nested} }}]}})
TABLE = {{"times": lambda x: x * {table} }}
LIST = [{list}]
ARRAY = np.array([{array}])
PART = functools.partial(times, by={part})
PAIR = collections.namedtuple("Pair", "by")({pair})
LAYER = torch.nn.LeakyReLU({layer})
CONSTANT = {constant}
LATE = {late}
ACT = torch.{builtin}
KNOWN = {{{known}, 5, 7}}
"""
_NET = """
import helper
import torch
from helper import ACT, ARRAY, KNOWN, LAYER, LIST, NESTED, PAIR, PART, TABLE, Times, settings

class Net(torch.nn.Module):
    KINDS = {{"times": lambda x: x * {of_class} }}

    def __init__(self):
        super().__init__()
        self.linear, self._scale, self.times = torch.nn.Linear(4, 3), {private}, Times()
        self.register_buffer("shift", torch.tensor({buffer}), persistent=False)
        self.linear.register_forward_hook(lambda module, given, result: result * {hook})

    def forward(self, x):
        from helper import LATE

        x = x * torch.as_tensor(ARRAY).float()
        x = PART(TABLE["times"](x)) * LIST[0] * NESTED.inner["scale"][0]["by"] * PAIR.by
        x = LAYER(x) * settings.scale * helper.CONSTANT * LATE * self._scale + self.shift
        return self.linear(ACT(self.KINDS["times"](self.times(x)))) * (1.0 if 7 in KNOWN else 2.0)
"""
_VALUES = dict.fromkeys(re.findall(r"(?<!{){(\w+)}(?!})", _HELPER + _NET), "1.0") | {"builtin": "tanh"}
_VALUES |= {"known": "3.0"}


_EACH = """
import importlib, sys, torch
from xaicli.attribution.fingerprint import fingerprint

for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    for name in ("net", "helper"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    torch.manual_seed(0)
    model = importlib.import_module("net").Net()
    model(torch.zeros(2, 4))
    print(*fingerprint(model), flush=True)
"""


def fingerprints(folders: dict[Path, dict[str, str]], hash_seed: str) -> list[str]:
    """Of the model in each folder, written there with some values edited: its fingerprint and what was not told."""
    for folder, edit in folders.items():
        folder.mkdir(exist_ok=True)
        for name, source in (("helper", _HELPER), ("net", _NET)):
            (folder / f"{name}.py").write_text(source.format(**{**_VALUES, **edit}))
    done = subprocess.run(
        [sys.executable, "-c", _EACH, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]


def test_whatever_the_code_reaches_is_told_and_equal_in_every_process(tmp_path: Path) -> None:
    edits = {tmp_path / name: {name: "relu" if name == "builtin" else "2.5"} for name in _VALUES}
    same, *edited = fingerprints({tmp_path / "same": {}, **edits}, hash_seed="1")
    assert len(same.split()) == 1, "all of it is told"
    assert fingerprints({tmp_path / "same": {}}, hash_seed="2") == [same]
    assert len(_VALUES) == 17
    assert not [path.name for path, found in zip(edits, edited, strict=True) if found == same]
    assert len(set(edited)) == len(_VALUES)


class ByKey(dict[str, Any]):
    __getattr__ = dict.__getitem__


class ByKeyOrNone(dict[str, Any]):
    __getattr__ = dict.get


class OwnAttributes(dict[str, Any]):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__ = self


class ByKeyOfAnother:
    def __init__(self, **values: Any) -> None:
        vars(self)["values"] = values

    def __getattr__(self, name: str) -> Any:
        return vars(self)["values"][name]


class InSlots:
    __slots__ = ("later", "values")

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


class Failing(dict[str, Any]):
    def items(self) -> Any:
        raise ZeroDivisionError("no items")


def net_with(config: Any, *, in_class: bool) -> torch.nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return x * self.config.T

    made = type("Net", (torch.nn.Module,), {"forward": forward, **({"config": config} if in_class else {})})()
    if not in_class:
        made.config = config
    return cast(torch.nn.Module, made)


@pytest.mark.parametrize("in_class", [False, True], ids=["in an attribute", "in the class"])
@pytest.mark.parametrize("kind", [ByKey, ByKeyOrNone, OwnAttributes, ByKeyOfAnother, InSlots])
def test_settings_whose_class_answers_for_any_name_are_told(kind: type[Any], in_class: bool) -> None:
    first, same, other = (fingerprint(net_with(kind(items=3, T=t), in_class=in_class)) for t in (1.0, 1.0, 2.0))
    assert first == same != other
    assert first[1] == other[1] == ""


@pytest.mark.parametrize("in_class", [False, True], ids=["in an attribute", "in the class"])
def test_what_raises_when_it_is_looked_into_is_said_not_to_be_told(in_class: bool) -> None:
    _, untold = fingerprint(net_with(Failing(T=1.0), in_class=in_class))
    assert untold.endswith("Failing holds, ZeroDivisionError: no items")


def test_a_model_whose_text_raises_is_said_not_to_be_told() -> None:
    class Net(torch.nn.Module):
        def extra_repr(self) -> str:
            raise ZeroDivisionError("no text")

    assert fingerprint(Net())[1].endswith("Net holds, ZeroDivisionError: no text")
