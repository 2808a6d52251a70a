"""Maps as pictures, bars, curves or shaded text, by the kind of input they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from xaicli.attribution.explanation import Explanation, InputKind, InputView, SaliencyMap
from xaicli.report.charts import BarChart, Image, LineChart, Series, Tone
from xaicli.report.mapgrid import FIXED, MapPanel, MapView

if TYPE_CHECKING:
    from xaicli.attribution.explanation import Floats

MAGNITUDE, SIGNED = "inferno", "berlin"
"""Both are black where there is nothing."""

_BARS = 20
_POINTS = 512
_TOP = 99.0


def input_image(e: Explanation) -> Image | None:
    """The first picture among a sample's inputs."""
    view = next((view for view in e.inputs if view.picture is not None), None)
    return _picture(view, f"input of sample {e.sample_id}") if view is not None else None


def panels_of(
    e: Explanation, method: str, title: str, lines: tuple[str, ...], *, group: str = "", overlay: bool = False
) -> Iterator[MapPanel]:
    """One panel per input that the method has a map of.

    Args:
        e: The sample.
        method: Which map.
        title: What to call the panel.
        lines: What to say below.
        group: What a toggle switches it by; the method by default.
        overlay: Only the map over the picture.
    """
    for view in e.inputs:
        found = e.map_of(method, view.name)
        if found is None or (overlay and (view.picture is None or found.values.shape != view.picture.shape[:2])):
            continue
        shown = f"{title} · {view.name}" if view.name and len(e.inputs) > 1 else title
        toggled = group or ("overlay" if overlay else method)
        if overlay:
            image = _grey(found.values, MAGNITUDE, f"{shown}, sample {e.sample_id}")
            panel = MapPanel(toggled, shown, (MapView(FIXED, image),), lines)
        else:
            panel = _panel(e, view, found, toggled, shown, lines)
        yield replace(panel, toggle=title)


def _panel(
    e: Explanation, view: InputView, found: SaliencyMap, toggled: str, title: str, lines: tuple[str, ...]
) -> MapPanel:
    alt = f"{title}, sample {e.sample_id}"
    match view.kind:
        case InputKind.TABULAR:
            return MapPanel(toggled, title, (), lines, found.flat, chart=_bars(e, found, title, alt))
        case InputKind.SIGNAL:
            return MapPanel(toggled, title, (), lines, found.flat, chart=_curve(view, found, title, alt))
        case InputKind.TOKENS:
            strengths = found.values.reshape(-1)
            tokens = view.tokens or tuple(str(i) for i in range(len(strengths)))
            pairs = tuple((t, float(s)) for t, s in zip(tokens, strengths, strict=False))
            return MapPanel(toggled, title, (), lines, found.flat, tokens=pairs)
        case _:
            return MapPanel(toggled, title, tuple(_views(found, alt)), lines, found.flat)


def _views(found: SaliencyMap, alt: str) -> Iterator[MapView]:
    """The map as it is defined, over its full range, and signed."""
    import numpy as np

    yield MapView("clipped", _grey(found.values, MAGNITUDE, alt))
    signed = _over_channels(found.attribution, found.values.shape)
    if signed is None:
        return
    sized = _over_channels(np.abs(found.attribution), found.values.shape)
    if sized is not None:
        low, high = float(sized.min()), float(sized.max())
        yield MapView("full", _grey((sized - low) / ((high - low) or 1), MAGNITUDE, f"{alt}, full range"))
    top = float(np.percentile(np.abs(signed), _TOP)) or float(np.abs(signed).max()) or 1.0
    yield MapView("signed", _grey(0.5 + 0.5 * signed / top, SIGNED, f"{alt}, red for, blue against"))


def _over_channels(values: Floats, shape: tuple[int, ...]) -> Floats | None:
    """An attribution summed over the axes that its map lacks; None where the shapes do not fit."""
    import numpy as np

    finite: Floats = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    if finite.shape == shape:
        return finite
    for axis in range(finite.ndim):
        if finite.shape[:axis] + finite.shape[axis + 1 :] == shape:
            summed: Floats = finite.sum(axis=axis)
            return summed
    return None


def _grey(values: Floats, palette: str, alt: str) -> Image:
    import numpy as np

    height, width = values.shape
    levels = np.clip(np.nan_to_num(values) * 255, 0, 255).round().astype(np.uint8)
    return Image(width, height, 1, levels.tobytes(), alt, palette)


def _picture(view: InputView, alt: str) -> Image | None:
    if view.picture is None:
        return None
    height, width, channels = view.picture.shape
    return Image(width, height, channels, view.picture.tobytes(), alt)


def _bars(e: Explanation, found: SaliencyMap, title: str, alt: str) -> BarChart:
    """The strongest features, in the order of the most refined map: the same for every method of a sample."""
    import numpy as np

    values = np.nan_to_num(found.attribution.reshape(-1))
    finest = [other for other in e.maps if other.input == found.input][-1]
    order = np.argsort(-np.abs(np.nan_to_num(finest.attribution.reshape(-1))), kind="stable")[:_BARS]
    names = tuple(f"feature {i}" for i in order)
    return BarChart("bars", title, "attribution", names, tuple(float(values[i]) for i in order), alt)


def _curve(view: InputView, found: SaliencyMap, title: str, alt: str) -> LineChart:
    """The signal, moved into [0, 1], and its map."""
    import numpy as np

    strengths = found.values.reshape(-1)
    signal = np.zeros_like(strengths) if view.values is None else view.values.reshape(-1, view.values.shape[-1])[0]
    low, high = float(np.min(signal)), float(np.max(signal))
    stride = -(-len(strengths) // _POINTS)
    x = tuple(float(i) for i in range(0, len(strengths), stride))
    moved = (signal - low) / ((high - low) or 1)
    lines = (
        Series("signal", x, tuple(float(v) for v in moved[::stride]), Tone.MEDIAN, key="signal"),
        Series("map", x, tuple(float(v) for v in strengths[::stride]), Tone.MAX, key="map"),
    )
    return LineChart("curve", title, "position", "map, and the signal moved into [0, 1]", lines, alt=alt)
