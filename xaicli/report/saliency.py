"""The report of saliency maps: pictures, bars, curves or shaded text by kind of input, and how far to trust them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from xaicli.answer import Answer
from xaicli.attribution.explanation import Change, Explanation, InputKind, InputView, Saliency, SaliencyMap, Trust
from xaicli.attribution.settings import DOUBLINGS
from xaicli.report.charts import BarChart, Image, LineChart, Series, Tone
from xaicli.report.facts import FACTS, on_card
from xaicli.report.model import (
    FIXED,
    IN_CSV,
    Block,
    Cell,
    Column,
    Link,
    MapGrid,
    MapPanel,
    MapRow,
    MapView,
    Report,
    Section,
    Table,
    Text,
    Views,
)
from xaicli.report.numbers import count, listed, sample_name, short
from xaicli.report.page import BY_IDS, RunFacts, address_of, label_names_of, made, place_of, run_line
from xaicli.words import fraction, percent, quoted

if TYPE_CHECKING:
    from xaicli.attribution.explanation import Floats

MAGNITUDE, SIGNED = "inferno", "berlin"
"""Both are black where there is nothing."""

_BARS = 20
_POINTS = 512
_COLOURS = (0, 2, 3, 4, 5)
"""Of the channels of a signal, as many as are drawn: the colours of plain lines but the one that is the map's."""
_LONG = 4
"""How many times as long as it is wide a plane of values is shown at most."""
_TOP = 99.0


def input_images(e: Explanation) -> dict[str, Image]:
    """The pictures of a sample's inputs, by the inputs' names."""
    several = len(e.inputs) > 1
    seen = {
        view.name: _seen(e, view, f"input {view.name} of" if several and view.name else "input of") for view in e.inputs
    }
    return {name: image for name, image in seen.items() if image is not None}


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
            image = _grey(found.values, MAGNITUDE, f"{shown}, sample {_in_words(e)}")
            panel = MapPanel(toggled, shown, (MapView(FIXED, image),), lines)
        else:
            panel = _panel(e, view, found, toggled, shown, lines)
        yield replace(panel, toggle=title, input=view.name)


def _panel(
    e: Explanation, view: InputView, found: SaliencyMap, toggled: str, title: str, lines: tuple[str, ...]
) -> MapPanel:
    alt = f"{title}, sample {_in_words(e)}"
    match view.kind:
        case InputKind.TABULAR:
            bars, said = _bars(e, view, found, title, alt)
            return MapPanel(toggled, title, (), (*lines, *said), found.flat, chart=bars)
        case InputKind.SIGNAL if 1 in found.values.shape:
            curve, said = _curve(e, view, found, title, alt)
            return MapPanel(toggled, title, (), (*lines, *said), found.flat, chart=curve)
        case InputKind.TOKENS:
            strengths = found.values.reshape(-1)
            tokens = view.tokens or tuple(str(i) for i in range(len(strengths)))
            kept = [i for i in range(min(len(tokens), len(strengths))) if i not in view.padding]
            pairs = tuple((tokens[i], float(strengths[i])) for i in kept)
            special = None if view.special is None else frozenset(n for n, i in enumerate(kept) if i in view.special)
            return MapPanel(toggled, title, (), lines, found.flat, tokens=pairs, special=special)
        case InputKind.SIGNAL:
            plane = replace(found, values=_widened(found.values), attribution=_widened(found.attribution))
            return MapPanel(toggled, title, tuple(_views(plane, alt)), lines, found.flat)
        case InputKind.IMAGE:
            return MapPanel(toggled, title, tuple(_views(found, alt)), lines, found.flat)
    assert_never(view.kind)


def _in_words(e: Explanation | Change) -> str:
    """A sample in a sentence: by its id and, where that is known, of which mode and data set it is."""
    place = " ".join(filter(None, (e.mode, e.ds_id)))
    return f"{e.sample_id} of {place}" if place else str(e.sample_id)


def _sample(saliency: Saliency, e: Explanation | Change) -> str:
    """A sample in a table: by its id, where samples are of several modes or data sets with its own."""
    return _in_words(e) if len(saliency.places) > 1 else str(e.sample_id)


def _widened(plane: Floats) -> Floats:
    """A plane of (time, feature), its shorter axis repeated until the longer one is some times as long."""
    import numpy as np

    short, long = sorted(plane.shape)
    widened: Floats = np.repeat(plane, max(1, long // (_LONG * short)), axis=plane.shape.index(short))
    return widened


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


def _seen(e: Explanation, view: InputView, of: str) -> Image | None:
    """An input as a picture: its own, or a plane of values that has a map of its shape; None of any other."""
    import numpy as np

    alt = f"{of} sample {_in_words(e)}"
    if view.picture is not None:
        height, width, channels = view.picture.shape
        return Image(width, height, channels, view.picture.tobytes(), alt)
    found = next((found for found in e.maps if found.input == view.name), None)
    if found is None or view.values is None or 1 in found.values.shape or found.values.shape != view.values.shape:
        return None
    plane = np.nan_to_num(view.values, posinf=0, neginf=0)
    return _grey(_widened(_unit(plane)), "", alt)


def _finest(e: Explanation, name: str) -> SaliencyMap:
    """The most refined map of an input: what is drawn of many features is chosen by it, alike for every method."""
    return [found for found in e.maps if found.input == name][-1]


def _chosen(n: int, sizes: Floats, what: str, e: Explanation, found: SaliencyMap) -> tuple[list[int], tuple[str, ...]]:
    """The strongest of something by the most refined map, and what to say where they are not all.

    Args:
        n: How many there is room for.
        sizes: How strong each is in the most refined map.
        what: What they are, in the plural.
        e, found: The sample, and the map that is drawn.
    """
    import numpy as np

    order = np.argsort(-sizes, kind="stable")
    chosen = [int(i) for i in order[:n]]
    if len(order) <= n:
        return chosen, ()
    finest = _finest(e, found.input).method
    return chosen, (f"{n} of {len(order):,} {what}: the strongest of {TITLES.get(finest, finest)}",)


def _bars(
    e: Explanation, view: InputView, found: SaliencyMap, title: str, alt: str
) -> tuple[BarChart, tuple[str, ...]]:
    """The strongest features, in the order of the most refined map: the same for every method of a sample."""
    import numpy as np

    values = np.nan_to_num(found.attribution.reshape(-1))
    sizes = np.abs(np.nan_to_num(_finest(e, found.input).attribution.reshape(-1)))
    order, said = _chosen(_BARS, sizes, "features", e, found)
    if said and (whole := float(np.abs(values).sum())):
        said = (*said, f"{percent(float(np.abs(values[order]).sum()) / whole)} of this map")
    names = tuple(view.features[i] if view.features else f"feature {i}" for i in order)
    return BarChart("bars", title, "attribution", names, tuple(float(values[i]) for i in order), alt), said


def _curve(
    e: Explanation, view: InputView, found: SaliencyMap, title: str, alt: str
) -> tuple[LineChart, tuple[str, ...]]:
    """The channels of a signal, each moved into [0, 1], and its map; of a long one the strongest places."""
    import numpy as np

    strengths = found.values.reshape(-1)
    channels = _channels(view, found)
    finest = _finest(e, found.input)
    sizes = np.abs(np.nan_to_num(_channels(replace(view, values=finest.attribution), found))).sum(axis=1)
    if len(sizes) != len(channels):  # a map that has no channels, as Grad-CAM's
        sizes = np.ones(len(channels), np.float32)
    chosen, said = _chosen(len(_COLOURS), sizes, "channels", e, found)
    stride = -(-len(strengths) // _POINTS)
    at = [start + int(np.argmax(strengths[start : start + stride])) for start in range(0, len(strengths), stride)]
    if stride > 1:
        said = (*said, f"{len(at):,} of {len(strengths):,} places: the strongest of each {stride:,}")
    x = tuple(float(i) for i in at)
    lines = []
    for colour, number in zip(_COLOURS, sorted(chosen), strict=False):
        signal = np.nan_to_num(channels[number], posinf=0, neginf=0)
        y = tuple(float(v) for v in _unit(signal)[at])
        if len(channels) == 1:
            lines.append(Series("signal", x, y, Tone.MEDIAN, key="signal"))
        else:
            lines.append(Series(f"channel {number}", x, y, key=f"channel-{number}", colour=colour))
    lines.append(Series("map", x, tuple(float(v) for v in strengths[at]), Tone.MAX, key="map"))
    label = "map, and the signal moved into [0, 1]"
    if len(channels) > 1:
        label = "map; each channel moved into [0, 1]"
    return LineChart("curve", title, "position", label, tuple(lines), alt=alt), said


def _channels(view: InputView, found: SaliencyMap) -> Floats:
    """A signal as (channel, length), whichever of its axes are the channels that its map is summed over."""
    import numpy as np

    values, length = view.values, found.values.size
    if values is None:
        return np.zeros((1, length), np.float32)
    if values.ndim != 2:
        return values.reshape(-1, length)
    if values.shape[1] != length or (values.shape[0] == length and _is_of_sums(found, axis=1)):
        return values.T
    return values


def _is_of_sums(found: SaliencyMap, *, axis: int) -> bool:
    """Whether a square attribution's sums over an axis, and not those over the other, are in the order of its map."""
    import numpy as np

    sizes = np.abs(np.nan_to_num(found.attribution))
    strengths = found.values.reshape(-1)
    if sizes.shape != (strengths.size, strengths.size):
        return False
    off = [float(np.abs(_unit(sizes.sum(axis=a)) - strengths).sum()) for a in (axis, 1 - axis)]
    return off[0] < off[1]


def _unit(values: Floats) -> Floats:
    """Values moved into [0, 1]."""
    moved: Floats = (values - values.min()) / ((values.max() - values.min()) or 1)
    return moved


TITLES = {
    "gradient": "Gradient",
    "smoothgrad": "SmoothGrad",
    "integrated": "Integrated",
    "smint": "SmInt",
    "gradcam": "Grad-CAM",
}
_NOISE = 0.5
"""Half-split agreement below which two halves of the draws have little in common."""
_INCOMPLETE = 1.0
"""Delta from which a map misses what it explains by as much as there is of it."""
_NOISE_WORDS, _INCOMPLETE_WORDS, _WORSE_WORDS = "mostly noise", "does not add up", "worse than random"
_UNSETTLED_WORDS = "not settled"
_SCALE = "its lowest value to its 99th percentile"
_NOTE = (
    "Each map is scaled on its own: strength compares within a map, not between maps. "
    "Delta: relative completeness error. Agreement: rank correlation of the maps from two halves of the random draws; "
    "gradient, integrated and Grad-CAM draw nothing and have none."
)


Known = Mapping[str, tuple[tuple[str, Link], ...]]
"""What the samples are, by sample id as text: (name, what is known) each."""


def saliency_report(answer: Answer, saliency: Saliency, facts: RunFacts | None = None) -> Report:
    """The page of `xai saliency`.

    Args:
        answer: The machine's view.
        saliency: The maps.
        facts: The run, where there is one; its track report is linked.
    """
    several = len(saliency.checkpoints) > 1
    path = facts.path if facts is not None else ""
    known = {str(row["sample_id"]): on_card(row, path) for row in answer.data.iter_rows(named=True) if FACTS in row}
    grids = _by_checkpoint(saliency, facts, known) if several else (_grid(saliency, facts, known),)
    sections = [Section("Maps", "maps", grids if saliency.explanations else (Text("No samples.", Tone.FAINT),), True)]
    if saliency.explanations:
        sections.append(Section("How far to trust them", "trust", tuple(_trust_tables(saliency))))
    if saliency.changes:
        sections.append(Section("How the attention moved", "changes", (_changes(saliency),)))
    if saliency.sanity:
        sections.append(Section("Against randomised models", "sanity", (_sanity(saliency),)))
    return Report(
        name="saliency",
        title=f"Saliency of {count(len({e.key for e in saliency.explanations}), 'sample')}",
        run_line=_run_line(answer, saliency, facts),
        label_names=label_names_of(facts),
        run_id=facts.run_id if facts is not None else "",
        absent=BY_IDS + (", if it is in the data" if answer.selection.get("data") else ", if the run kept its input"),
        sentence=_sentence(saliency),
        sections=tuple(sections),
        made=tuple(
            (what, said.replace(", ", " to ") if what == "evaluations per sample" else said)
            for what, said in made(answer, *_checkpoints(saliency), ("scale of a map", _SCALE))
            if what != "command" or any(checkpoint.path for checkpoint in saliency.checkpoints)
        ),
        warnings=answer.warnings,
        tables={"saliency": lambda: list(_flat_rows(answer))},
    )


def _run_line(answer: Answer, saliency: Saliency, facts: RunFacts | None) -> str:
    names = [c.name + (f" (epoch {c.epoch})" if c.epoch is not None else "") for c in saliency.checkpoints if c.name]
    picked = answer.selection.get("picked")
    ranked = f"the {picked['pick']} by {picked['metric']} of mode {listed(picked['mode'])}" if picked else ""
    if picked and any(picked["ds_id"]):
        ranked += f" of data set {listed(list(map(quoted, picked['ds_id'])))}"
    parts = [
        run_line(answer, facts),
        *([ranked] if ranked else []),
        *([f"checkpoint {listed(names, 4)}"] if names else []),
    ]
    return " · ".join(parts)


def _sentence(saliency: Saliency) -> str:
    last = len(saliency.checkpoints) - 1
    of_last = [e for e in saliency.explanations if e.checkpoint == last]
    outputs = dict.fromkeys(e.output for e in of_last)
    judged: list[str] = []
    for output in outputs:
        wrong = {e.key for e in of_last if e.output == output and _is_wrong(e)}
        if known := {e.key for e in of_last if e.output == output and e.correct is not None}:
            of = f" (output {output})" if len(outputs) > 1 else ""
            judged.append(f"{len(wrong)} of {len(known)}{'' if judged else ' predicted wrongly'}{of}")
    flat = sum(trust.flat for e in saliency.explanations for trust in e.trust.values())
    agreements = sorted(
        trust.agreement
        for e in saliency.explanations
        if (trust := e.trust.get(saliency.overlay)) and trust.agreement is not None
    )
    by = f" by {saliency.checkpoints[last].name}, the last checkpoint" if last else ""
    said = [f"{', '.join(judged)}{by}." if judged else ""]
    if agreements:
        middle = agreements[len(agreements) // 2]
        title = TITLES.get(saliency.overlay, saliency.overlay)
        of_all = " of all checkpoints" if last else ""
        noisy = sum(agreement < _NOISE for agreement in agreements)
        said.append(
            f"Two halves of the draws agree to {fraction(middle, bounds=(_NOISE,))} "
            f"({title}, median rank correlation{of_all})."
        )
        if noisy:
            said.append(
                f"{noisy:,} of {count(len(agreements), 'map')} of it {'is' if noisy == 1 else 'are'} {_NOISE_WORDS}."
            )
    said.append(f"{count(flat, 'map')} {'is' if flat == 1 else 'are'} flat: nothing to see there." if flat else "")
    said = [part for part in said if part] or [_NOTE.split(":")[0] + "."]
    if head := saliency.settings.get("head"):
        said.append(f"The output is {head}.")
    return " ".join(said)


def _grid(saliency: Saliency, facts: RunFacts | None, known: Known) -> MapGrid:
    rows = []
    for number, e in enumerate(saliency.explanations):
        panels = [
            panel
            for method in saliency.methods
            for panel in panels_of(e, method, TITLES.get(method, method), _trust_lines(e.trust.get(method)))
        ]
        rows.append(_row(e, number, (*panels, *_overlay(e, saliency)), facts, known, several=len(saliency.places) > 1))
    return MapGrid("saliency", "Saliency", tuple(rows), _note(saliency))


def _note(saliency: Saliency) -> str:
    """How to read the maps, and how many of the classes stand beside them."""
    few = max(((e.n_classes, len(e.top)) for e in saliency.explanations), default=(0, 0))
    return _NOTE + (
        f" Beside each sample: the {few[1]} most probable of {few[0]:,} classes." if few[0] > few[1] else ""
    )


def _overlay(e: Explanation, saliency: Saliency) -> Iterator[MapPanel]:
    """The most refined map over the input."""
    title = f"Overlay: {TITLES.get(saliency.overlay, saliency.overlay)}"
    yield from panels_of(e, saliency.overlay, title, (), overlay=True)


def _by_checkpoint(saliency: Saliency, facts: RunFacts | None, known: Known) -> tuple[Block, ...]:
    """A view a method, a row a sample, a column a checkpoint: so one sees the attention move."""
    views: dict[str, tuple[Block, ...]] = {}
    for method in (saliency.overlay, *(m for m in saliency.methods if m != saliency.overlay)):
        rows: dict[tuple[object, ...], list[Explanation]] = {}
        for e in saliency.explanations:
            rows.setdefault((e.key, e.target, e.output), []).append(e)
        found = []
        for number, group in enumerate(rows.values()):
            panels = [
                panel
                for e in group
                for panel in panels_of(
                    e,
                    method,
                    _column(saliency, e.checkpoint),
                    (f"predicted {e.prediction_name}", *_trust_lines(e.trust.get(method))),
                    group=f"{e.checkpoint}",
                )
            ]
            last = group[-1]
            row = _row(last, number, tuple(panels), facts, known, several=len(saliency.places) > 1)
            found.append(replace(row, lines=(f"answer of {_column(saliency, last.checkpoint)}", *row.lines)))
        views[TITLES.get(method, method)] = (
            MapGrid(
                f"saliency-{method}", TITLES.get(method, method), tuple(found), _note(saliency), toggles="checkpoints"
            ),
        )
    return (Views("methods", "method", views),)


def _column(saliency: Saliency, index: int) -> str:
    checkpoint = saliency.checkpoints[index]
    return checkpoint.name + (f" · epoch {checkpoint.epoch}" if checkpoint.epoch is not None else "")


def _row(
    e: Explanation, number: int, panels: tuple[MapPanel, ...], facts: RunFacts | None, known: Known, *, several: bool
) -> MapRow:
    predicted = ""
    sure = f" ({fraction(e.label_prob)})" if e.label_prob is not None else ""
    lines = [f"label {e.label_name}{sure}"] if e.label is not None else []
    if e.target_name and e.target != e.prediction:
        lines.append(f"explained {e.target_name}")
    if e.output:
        lines.append(f"output {e.output}")
    if e.prediction is not None:
        mark = " ✓" if e.correct else ""
        lines.append(predicted := f"predicted {e.prediction_name}{mark}")
    if padding := sum(len(view.padding) for view in e.inputs):
        lines.append(f"{count(padding, 'place')} of padding left out")
    lines += [
        f"{' '.join(('input', view.name)).strip()} shown as the mean of its {planes:,} planes"
        for view in e.inputs
        if (planes := _planes_of(view)) > 1
    ]
    place = "\n".join(place_of(*pair) for pair in ([(e.mode, e.ds_id or "")] if e.mode else e.stands_for))
    history = address_of("track-report.html", e.sample_id, place)
    return MapRow(
        key=f"e-{number}",
        title=" · ".join(filter(None, (sample_name(e.sample_id), e.place if several else ""))),
        lines=tuple(lines),
        wrong=predicted if _is_wrong(e) else "",
        probabilities=tuple((name, p, _tone(e, name)) for name, p in e.top),
        inputs=input_images(e),
        panels=panels,
        links=(("history", history),) if facts is not None else (),
        deep_link=str(e.sample_id),
        place=place,
        facts=known.get(str(e.sample_id), ()),
    )


def _planes_of(view: InputView) -> int:
    """How many channels, planes or frames of an input are one plane of its picture."""
    if view.picture is None or view.values is None or view.picture.shape[2] != 1:
        return 1
    height, width, _ = view.picture.shape
    return view.values.size // (int(height) * int(width))


def _is_wrong(e: Explanation) -> bool:
    return e.correct is False


def _tone(e: Explanation, name: str) -> Tone:
    if e.correct is not None and name == e.label_name:
        return Tone.GOOD
    return Tone.BAD if _is_wrong(e) and name == e.prediction_name else Tone.FAINT


def _trust_lines(trust: Trust | None) -> tuple[str, ...]:
    if trust is None:
        return ()
    said = []
    if trust.delta is not None:
        missed = f": {_INCOMPLETE_WORDS}" if _is_incomplete(trust) else ""
        said.append(f"delta {short(trust.delta, 2)}{missed}")
    if trust.agreement is not None:
        noise = f": {_NOISE_WORDS}" if trust.agreement < _NOISE else ""
        said.append(f"agreement {fraction(trust.agreement, bounds=(_NOISE,))}{noise}")
    said += [_UNSETTLED_WORDS] if trust.settled is False else []
    return (*said, *_worse_than_random(trust))


def _is_incomplete(trust: Trust) -> bool:
    return trust.delta is not None and trust.delta >= _INCOMPLETE


def _worse_than_random(trust: Trust) -> tuple[str, ...]:
    """Whether a random map finds the places that matter sooner, as they are put in, are taken out, or both."""
    inserted, by_chance = trust.quality.get("insertion"), trust.quality.get("insertion_random")
    deleted, chance = trust.quality.get("deletion"), trust.quality.get("deletion_random")
    worse = ["insertion"] if inserted is not None and by_chance is not None and inserted < by_chance else []
    worse += ["deletion"] if deleted is not None and chance is not None and deleted > chance else []
    return (" ".join((*worse[: len(worse) % 2], _WORSE_WORDS)),) if worse else ()


def _verdict(trust: Trust) -> str:
    """What speaks against a map, in words."""
    said = ["flat"] if trust.flat else []
    said += [_INCOMPLETE_WORDS] if _is_incomplete(trust) else []
    said += [_NOISE_WORDS] if trust.agreement is not None and trust.agreement < _NOISE else []
    said += [_UNSETTLED_WORDS] if trust.settled is False else []
    return ", ".join((*said, *_worse_than_random(trust)))


def _beside_sample(saliency: Saliency) -> tuple[str, ...]:
    """The columns that tell the maps of one sample apart: checkpoint, output, target, as far as there are several."""
    rows = saliency.explanations
    found = ["checkpoint"] if len(saliency.checkpoints) > 1 else []
    found += ["output"] if len({e.output for e in rows}) > 1 else []
    places = {(e.key, e.checkpoint, e.output) for e in rows}
    return (*found, *(["target"] if len(places) < len(rows) else []))


def _of_which(saliency: Saliency, apart: tuple[str, ...], checkpoint: int, output: str, target: str) -> tuple[str, ...]:
    """The cells of the columns of `_beside_sample`."""
    said = {"checkpoint": saliency.checkpoints[checkpoint].name, "output": output, "target": target}
    return tuple(said[name] for name in apart)


def _trust_tables(saliency: Saliency) -> Iterator[Table]:
    """The figures that every map has with what speaks against it, and those of `--evaluate` on their own.

    In one table the verdict stood beyond the edge of the page.
    """
    several, apart = len(saliency.checkpoints) > 1, _beside_sample(saliency)
    known = dict.fromkeys(name for e in saliency.explanations for t in e.trust.values() for name in t.quality)
    beside = {name: f"{name}_random" for name in known}  # a random map's figure stands beside the map's own
    names = [each for name in known if name not in beside.values() for each in (name, beside[name]) if each in known]
    doubted = any(_verdict(trust) for e in saliency.explanations for trust in e.trust.values())
    is_refined = saliency.settings.get("tolerance") is not None
    trusted: list[tuple[object, ...]] = []
    judged: list[tuple[object, ...]] = []
    keys = []
    for number, e in enumerate(saliency.explanations):
        for method, trust in e.trust.items():
            head = (_sample(saliency, e), *_of_which(saliency, apart, e.checkpoint, e.output, e.target_name))
            doubt = [_verdict(trust)] if doubted else []
            trusted.append(
                (
                    *head,
                    e.label_name if e.label is not None else "",
                    e.prediction_name,
                    method,
                    trust.delta,
                    trust.agreement,
                    *((trust.draws, trust.steps) if is_refined else ()),
                    *doubt,
                )
            )
            judged.append((*head, method, *(trust.quality.get(name) for name in names)))
            keys.append("" if several else f"e-{number}")
    head_columns = (Column("sample"), *(Column(name) for name in apart))
    columns = (
        *head_columns,
        Column("label"),
        Column("predicted"),
        Column("method"),
        # Where there is a doubt it says what this figure means: a terminal leaves it out for it.
        Column("delta", Cell.NUMBER, aside=doubted),
        Column("agreement", Cell.NUMBER),
        *([Column(name, Cell.INTEGER, aside=True) for name in ("draws", "steps")] if is_refined else []),
        *([Column("doubt")] if doubted else []),
    )
    note = (
        f"Below {_NOISE} of agreement a map is {_NOISE_WORDS}; from a delta of {_INCOMPLETE:.0f} on it misses what it "
        f"explains by as much as there is of it, and {_INCOMPLETE_WORDS}."
    )
    if is_refined:
        note += (
            f" Draws and steps are what each map has in the end; one that is still beyond the tolerance of "
            f"{saliency.settings['tolerance']:g} after {DOUBLINGS} doublings is {_UNSETTLED_WORDS}."
        )
    yield Table(
        "trust",
        "Trust figures of each map",
        columns,
        tuple(trusted),
        note,
        tuple(keys),
        terminal_rows=24,
        rest_in=IN_CSV,
    )
    if not names:
        return
    columns = (*head_columns, Column("method"), *(Column(name.replace("_", " "), Cell.NUMBER) for name in names))
    note = (
        "Areas under the target's probability while the strongest places are put in (insertion: high is good) and "
        f"taken out (deletion: low is good); where a random map does better, a map is {_WORSE_WORDS}. Infidelity: the "
        "part of the output's variation under noise that the map leaves unexplained. Sensitivity: how far the map "
        "moves within 2 % of the input's range."
    )
    yield Table(
        "evaluation",
        "Each map held against the model",
        columns,
        tuple(judged),
        note,
        tuple(keys),
        terminal_rows=24,
        rest_in=IN_CSV,
    )


def _changes(saliency: Saliency) -> Table:
    apart = tuple(name for name in _beside_sample(saliency) if name != "checkpoint")  # which has its own column
    names = {(e.output, e.target): e.target_name for e in saliency.explanations}
    rows = tuple(
        (
            _sample(saliency, c),
            *_of_which(saliency, apart, c.to_checkpoint, c.output, names.get((c.output, c.target), "")),
            c.method,
            _column(saliency, c.to_checkpoint),
            c.correlation,
        )
        for c in saliency.changes
    )
    head = (Column("sample"), *(Column(name) for name in apart))
    columns = (*head, Column("method"), Column("to checkpoint"), Column("correlation", Cell.NUMBER))
    note = "Rank correlation with the same sample's map one checkpoint before: 1 means that the attention stayed."
    return Table("changes", "Correlation with the checkpoint before", columns, rows, note)


def _sanity(saliency: Saliency) -> Table:
    apart = tuple(name for name in _beside_sample(saliency) if name != "target")  # a mean over all of them
    unused = ": not used by what is explained"
    rows = tuple(
        (
            *_of_which(saliency, apart, step.checkpoint, step.output, ""),
            f"{step.layer}{'' if step.is_used else unused}",
            *(step.similarity.get(m) for m in saliency.methods),
        )
        for step in saliency.sanity
    )
    head = (*(Column(name) for name in apart), Column("randomised down to"))
    columns = (*head, *(Column(TITLES.get(m, m), Cell.NUMBER) for m in saliency.methods))
    note = (
        "Rank correlation with the trained model's maps: a method whose maps stay the same does not explain the model."
    )
    if not all(step.is_used for step in saliency.sanity):
        note += " Of a layer that is not used, they stay the same by right."
    if left_out := [m for m in saliency.methods if not any(m in step.similarity for step in saliency.sanity)]:
        note += f" Not asked of {listed(left_out)}, whose maps are Captum's."
    return Table("sanity", "Cascading randomisation", columns, rows, note)


def _checkpoints(saliency: Saliency) -> list[tuple[str, str]]:
    said = []
    for checkpoint in saliency.checkpoints:
        if checkpoint.path:
            step = f", step {checkpoint.step}" if checkpoint.step is not None else ""
            digest = f", sha256 {checkpoint.sha256}" if checkpoint.sha256 else ""
            said.append((f"checkpoint {checkpoint.name}", f"{checkpoint.path}{step}{digest}"))
    return said


def _flat_rows(answer: Answer) -> Iterator[Mapping[str, object]]:
    """A row a sample and method, for a CSV file."""
    for row in answer.data.iter_rows(named=True):
        methods: Mapping[str, Mapping[str, object] | None] = row.pop("methods") or {}
        for method, figures in methods.items():
            if figures is not None:
                yield {**row, "method": method, **figures}
