"""Attributions of a bare model in one call, as the tests ask for them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from xaicli.attribution.engine import Attribution, Explainer
from xaicli.attribution.inputs import Given
from xaicli.attribution.prepared import prepare
from xaicli.attribution.settings import Convention, settle

_PREPARED = frozenset(inspect.signature(prepare).parameters)


def attribute(model: nn.Module, inputs: Given, **given: Any) -> Attribution:
    """All methods asked for; `given` are arguments of `prepare` and of `settle`."""
    prepared = {name: given.pop(name) for name in list(given) if name in _PREPARED}
    settings = settle(**given)
    raw = settings.convention is Convention.FE
    return Explainer(prepare(model, inputs, raw=raw, **prepared), settings).explain()
