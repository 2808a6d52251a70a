"""Grad-CAM (Selvaraju et al. 2017): the last convolutional activations, weighted by their mean gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from xaicli.attribution.flow import FEATURE_MAPS, FeatureMap
from xaicli.attribution.gradients import Attributions, differentiating
from xaicli.attribution.inputs import Layout
from xaicli.attribution.lookups import KeptCalls
from xaicli.attribution.prepared import Prepared
from xaicli.errors import XaiError

_ROWS = 16
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def explain(prepared: Prepared, layouts: Sequence[Layout]) -> Attributions:
    """Grad-CAM of every unit at the last activation that still has more than one place.

    Each input has the last activation that depends on it alone, so that two pictures have two maps; where their ways
    have joined before, the last one that depends on it at all. An input whose places no activation has gets zeros.

    Args:
        prepared: The model and the units.
        layouts: What the axes of each entry mean.

    Returns:
        Of each entry's shape: the map at the entry's size, shared equally among its channels.

    Raises:
        XaiError: The model has no convolutional activation.
    """
    places = [_activation(prepared, i, layout) for i, layout in enumerate(layouts)]
    if not any(places):
        raise XaiError(
            "gradcam needs a convolutional model: no activation of this one has places and channels",
            hint="choose other --methods: gradient, smoothgrad, integrated, smint",
        )
    n, step = len(prepared.units), prepared.model.at_once(_ROWS)
    parts: list[list[Tensor]] = [[] for _ in places]
    for first in range(0, n, step):
        rows = torch.arange(first, min(n, first + step), device=prepared.units.device)
        cams = _cams(prepared, {p for p in places if p}, rows)
        for i, place in enumerate(places):
            x = prepared.of_units(i)[rows]
            cam = torch.zeros_like(x)
            if place:
                # What forward cuts off before it looks ids up has no activation.
                read = sorted(prepared.entries[i].looked_up) if x.ndim == 3 and prepared.entries[i].tokens else ...
                cam[:, read] = over_input(cams[place], x[:, read], layouts[i])
            parts[i].append(cam)
    return Attributions([torch.cat(part) for part in parts])


def _activation(prepared: Prepared, entry: int, layout: Layout) -> FeatureMap | None:
    """The last activation of an entry with as many axes of places as the entry; not the outputs themselves."""
    position, x = prepared.entries[entry].position, prepared.points[entry]
    places = len(layout.spatial(x.shape))
    if layout is Layout.NO_CHANNELS and x.ndim == 3:
        fitting = [m for m in prepared.flow.maps if m.ndim - 2 in (1, 2)]
    else:
        fitting = [m for m in prepared.flow.maps if m.ndim - 2 == places]
    of_it = [m for m in fitting if position in m.sources]
    inside = [m for m in of_it if not m.result] or of_it
    others = {e.position for e in prepared.entries} - {position}
    own = [m for m in inside if not m.sources & others]
    best = own or inside
    return best[-1] if best else None


def _cams(prepared: Prepared, places: set[FeatureMap], rows: Tensor) -> dict[FeatureMap | None, Tensor]:
    """{activation: (row, *places)}."""
    maps = KeptCalls(FEATURE_MAPS, [place.call for place in places])
    # Clones: an in-place operation may not meet a leaf.
    with torch.enable_grad():
        points = [prepared.of_units(i)[rows].requires_grad_().clone() for i in range(len(prepared.entries))]
        batch, embedded = prepared.arrange(prepared.model, points, rows)
        with maps:
            result = prepared.model.forward(batch, embedded)
        scalar = prepared.reduce(result, rows).sum()
    if not scalar.requires_grad:
        raise XaiError(
            "the model's output does not depend on its activations through autograd",
            hint="is there torch.no_grad, detach, argmax, .long() or .data inside forward? gradcam needs the gradient",
        )
    ordered = sorted(places, key=lambda place: place.call)
    with differentiating():
        gradients = torch.autograd.grad(scalar, [maps.found[p.call] for p in ordered], allow_unused=True)
    found: dict[FeatureMap | None, Tensor] = {}
    for place, gradient in zip(ordered, gradients, strict=True):
        activation = maps.found[place.call].detach().movedim(place.channel, 1)
        slope = torch.zeros_like(activation) if gradient is None else gradient.movedim(place.channel, 1)
        weights = slope.flatten(2).mean(2).view(*slope.shape[:2], *[1] * (slope.ndim - 2))
        found[place] = functional.relu((weights * activation).sum(1))[: len(rows)]
    return found


def over_input(cam: Tensor, x: Tensor, layout: Layout) -> Tensor:
    """(unit, *places) at the size of the entry, divided among the channels so that they sum to it."""
    size, axis = layout.spatial(x.shape), layout.channel_axis(x.ndim)
    if len(size) == 2 and cam.ndim == 2:
        # A one-dimensional net on (length, features): the map runs along the axis the convolution moves along.
        size, axis = (x.shape[1],), 2
    if len(size) != cam.ndim - 1 or len(size) not in _MODES:
        raise XaiError(
            f"gradcam cannot place activations of {cam.ndim - 1} axes on an input of shape {tuple(x.shape[1:])}",
            hint="choose other --methods: gradient, smoothgrad, integrated, smint",
        )
    wide = functional.interpolate(cam.unsqueeze(1), size=size, mode=_MODES[len(size)], align_corners=False)[:, 0]
    if axis is None:
        return wide.reshape(x.shape).contiguous()
    return (wide / x.shape[axis]).unsqueeze(axis).expand_as(x).contiguous()
