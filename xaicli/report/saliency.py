"""The report of saliency maps: a row a sample, and how far to trust each map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from xaicli.answer import Answer
from xaicli.attribution.explanation import Explanation, Saliency, Trust
from xaicli.report.charts import Tone
from xaicli.report.facts import RunFacts, run_line
from xaicli.report.made import made
from xaicli.report.mapgrid import MapGrid, MapPanel, MapRow
from xaicli.report.mapviews import input_image, panels_of
from xaicli.report.model import Block, Cell, Column, Report, Section, Table, Text, Views
from xaicli.report.numbers import count, listed, short

TITLES = {
    "gradient": "Gradient",
    "smoothgrad": "SmoothGrad",
    "integrated": "Integrated",
    "smint": "SmInt",
    "gradcam": "Grad-CAM",
}
_NOISE = 0.5
"""Half-split agreement below which two halves of the draws have little in common."""
_NOISE_WORDS, _WORSE_WORDS = "mostly noise", "worse than random"
_SCALE = "its lowest value to its 99th percentile"
_NOTE = (
    "Each map is scaled on its own: brightness compares within a map, not between maps. "
    "Delta: relative completeness error. Agreement: rank correlation of the maps from two halves of the draws."
)


def saliency_report(answer: Answer, saliency: Saliency, facts: RunFacts | None = None) -> Report:
    """The page of `xai saliency`.

    Args:
        answer: The machine's view.
        saliency: The maps.
        facts: The run, where there is one; its track report is linked.
    """
    several = len(saliency.checkpoints) > 1
    grids = _by_checkpoint(saliency, facts) if several else (_grid(saliency, facts),)
    sections = [Section("Maps", "maps", grids if saliency.explanations else (Text("No samples.", Tone.FAINT),), True)]
    if saliency.explanations:
        sections.append(Section("How far to trust them", "trust", (_trust_table(saliency),)))
    if saliency.changes:
        sections.append(Section("How the attention moved", "changes", (_changes(saliency),)))
    if saliency.sanity:
        sections.append(Section("Against randomised models", "sanity", (_sanity(saliency),)))
    return Report(
        name="saliency",
        title=f"Saliency of {count(len({str(e.sample_id) for e in saliency.explanations}), 'sample')}",
        run_line=_run_line(answer, saliency, facts),
        sentence=_sentence(saliency),
        sections=tuple(sections),
        made=tuple(
            (what, said)
            for what, said in made(answer, *_checkpoints(saliency), ("scale of a map", _SCALE))
            if what != "command" or any(checkpoint.path for checkpoint in saliency.checkpoints)
        ),
        warnings=answer.warnings,
        tables={"saliency": lambda: _flat_rows(answer)},
    )


def _run_line(answer: Answer, saliency: Saliency, facts: RunFacts | None) -> str:
    names = [c.name + (f" (epoch {c.epoch})" if c.epoch is not None else "") for c in saliency.checkpoints if c.name]
    parts = [run_line(answer, facts), *([f"checkpoint {listed(names, 4)}"] if names else [])]
    return " · ".join(parts)


def _sentence(saliency: Saliency) -> str:
    wrong = {str(e.sample_id) for e in saliency.explanations if _is_wrong(e)}
    judged = {str(e.sample_id) for e in saliency.explanations if e.correct is not None}
    flat = sum(trust.flat for e in saliency.explanations for trust in e.trust.values())
    agreements = sorted(
        trust.agreement
        for e in saliency.explanations
        if (trust := e.trust.get(saliency.overlay)) and trust.agreement is not None
    )
    said = [f"{len(wrong)} of {len(judged)} predicted wrongly." if judged else ""]
    if agreements:
        middle = agreements[len(agreements) // 2]
        title = TITLES.get(saliency.overlay, saliency.overlay)
        noisy = sum(agreement < _NOISE for agreement in agreements)
        said.append(f"Two halves of the draws agree to {short(middle, 2)} ({title}, median rank correlation).")
        if noisy:
            said.append(
                f"{noisy:,} of {count(len(agreements), 'map')} of it {'is' if noisy == 1 else 'are'} {_NOISE_WORDS}."
            )
    said.append(f"{count(flat, 'map')} {'is' if flat == 1 else 'are'} flat: nothing to see there." if flat else "")
    return " ".join(part for part in said if part) or _NOTE.split(":")[0] + "."


def _grid(saliency: Saliency, facts: RunFacts | None) -> MapGrid:
    rows = []
    for number, e in enumerate(saliency.explanations):
        panels = [
            panel
            for method in saliency.methods
            for panel in panels_of(e, method, TITLES.get(method, method), _trust_lines(e.trust.get(method)))
        ]
        rows.append(_row(e, number, (*panels, *_overlay(e, saliency)), facts))
    return MapGrid("saliency", "Saliency", tuple(rows), _NOTE)


def _overlay(e: Explanation, saliency: Saliency) -> Iterator[MapPanel]:
    """The most refined map over the input."""
    title = f"Overlay: {TITLES.get(saliency.overlay, saliency.overlay)}"
    yield from panels_of(e, saliency.overlay, title, (), overlay=True)


def _by_checkpoint(saliency: Saliency, facts: RunFacts | None) -> tuple[Block, ...]:
    """A view a method, a row a sample, a column a checkpoint: so one sees the attention move."""
    views: dict[str, tuple[Block, ...]] = {}
    for method in (saliency.overlay, *(m for m in saliency.methods if m != saliency.overlay)):
        rows: dict[tuple[object, ...], list[Explanation]] = {}
        for e in saliency.explanations:
            rows.setdefault((str(e.sample_id), e.target, e.output), []).append(e)
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
            found.append(_row(group[-1], number, tuple(panels), facts))
        views[TITLES.get(method, method)] = (
            MapGrid(f"saliency-{method}", TITLES.get(method, method), tuple(found), _NOTE, toggles="checkpoints"),
        )
    return (Views("methods", "method", views),)


def _column(saliency: Saliency, index: int) -> str:
    checkpoint = saliency.checkpoints[index]
    return checkpoint.name + (f" · epoch {checkpoint.epoch}" if checkpoint.epoch is not None else "")


def _row(e: Explanation, number: int, panels: tuple[MapPanel, ...], facts: RunFacts | None) -> MapRow:
    wrong = _is_wrong(e)
    sure = f" ({e.label_prob:.2f})" if e.label_prob is not None else ""
    lines = [f"label {e.label_name}{sure}"] if e.label is not None else []
    if e.target_name and e.target != e.prediction:
        lines.append(f"explained {e.target_name}")
    if e.output:
        lines.append(f"output {e.output}")
    if e.prediction is not None:
        mark = " ✓" if e.correct else ""
        lines.append(f"predicted {e.prediction_name}{mark}")
    history = f"track-report.html#s={quote(str(e.sample_id), safe='')}"
    return MapRow(
        key=f"e-{number}",
        title=f"#{e.sample_id}",
        lines=tuple(lines),
        tone=Tone.BAD if wrong else Tone.PLAIN,
        probabilities=tuple((name, p, _tone(e, name)) for name, p in e.top),
        input=input_image(e),
        panels=panels,
        links=(("history", history),) if facts is not None else (),
        deep_link=str(e.sample_id),
    )


def _is_wrong(e: Explanation) -> bool:
    return e.correct is False


def _tone(e: Explanation, name: str) -> Tone:
    if e.correct is not None and name == e.label_name:
        return Tone.GOOD
    return Tone.BAD if _is_wrong(e) and name == e.prediction_name else Tone.FAINT


def _trust_lines(trust: Trust | None) -> tuple[str, ...]:
    if trust is None:
        return ()
    said = [f"delta {short(trust.delta, 2)}"] if trust.delta is not None else []
    if trust.agreement is not None:
        noise = f": {_NOISE_WORDS}" if trust.agreement < _NOISE else ""
        said.append(f"agreement {short(trust.agreement, 2)}{noise}")
    return (*said, *([_WORSE_WORDS] if _worse_than_random(trust) else []))


def _worse_than_random(trust: Trust) -> bool:
    """Whether a random map finds the pixels that matter sooner."""
    inserted, by_chance = trust.quality.get("insertion"), trust.quality.get("insertion_random")
    deleted, chance = trust.quality.get("deletion"), trust.quality.get("deletion_random")
    worse = inserted is not None and by_chance is not None and inserted < by_chance
    return worse or (deleted is not None and chance is not None and deleted > chance)


def _verdict(trust: Trust) -> str:
    """What speaks against a map, in words."""
    said = ["flat"] if trust.flat else []
    said += [_NOISE_WORDS] if trust.agreement is not None and trust.agreement < _NOISE else []
    said += [_WORSE_WORDS] if _worse_than_random(trust) else []
    return ", ".join(said)


def _trust_table(saliency: Saliency) -> Table:
    several = len(saliency.checkpoints) > 1
    extra = list(dict.fromkeys(name for e in saliency.explanations for t in e.trust.values() for name in t.quality))
    rows = []
    keys = []
    for number, e in enumerate(saliency.explanations):
        for method, trust in e.trust.items():
            head = [str(e.sample_id), *([saliency.checkpoints[e.checkpoint].name] if several else [])]
            figures = [trust.quality.get(name) for name in extra]
            answered = e.label_name if e.correct else ""
            answer = answered or (f"{e.label_name} → {e.prediction_name}" if e.label is not None else e.prediction_name)
            rows.append((*head, answer, method, trust.delta, trust.agreement, _verdict(trust), *figures))
            keys.append("" if several else f"e-{number}")
    columns = (
        Column("sample"),
        *([Column("checkpoint")] if several else []),
        Column("label → predicted"),
        Column("method"),
        Column("delta", Cell.NUMBER),
        Column("agreement", Cell.NUMBER),
        Column("doubt"),
        *(Column(name.replace("_", " "), Cell.NUMBER) for name in extra),
    )
    note = f"Below {_NOISE} of agreement a map is {_NOISE_WORDS}."
    return Table("trust", "Trust figures of each map", columns, tuple(rows), note, keys=tuple(keys), terminal_rows=24)


def _changes(saliency: Saliency) -> Table:
    rows = tuple(
        (str(c.sample_id), c.method, _column(saliency, c.to_checkpoint), c.correlation) for c in saliency.changes
    )
    columns = (Column("sample"), Column("method"), Column("to checkpoint"), Column("correlation", Cell.NUMBER))
    note = "Rank correlation with the same sample's map one checkpoint before: 1 means that the attention stayed."
    return Table("changes", "Correlation with the checkpoint before", columns, rows, note)


def _sanity(saliency: Saliency) -> Table:
    rows = tuple((step.layer, *(step.similarity.get(m) for m in saliency.methods)) for step in saliency.sanity)
    columns = (Column("randomised down to"), *(Column(TITLES.get(m, m), Cell.NUMBER) for m in saliency.methods))
    note = (
        "Rank correlation with the trained model's maps: a method whose maps stay the same does not explain the model."
    )
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
