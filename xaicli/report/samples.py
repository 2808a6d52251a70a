"""The report of the highest, lowest and listed samples: histories over the bands of all, as cards and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import Band, LineChart, Series, Times, Tone
from xaicli.report.facts import FactColumns, in_hover, on_card
from xaicli.report.model import IN_CSV, Block, Card, Cell, Column, Gallery, Report, Table, Text
from xaicli.report.numbers import count, listed, sample_name, shorts, spread
from xaicli.report.page import (
    BY_IDS,
    Page,
    Part,
    address_of,
    among,
    as_list,
    conditions,
    headline,
    place_of,
    report_of,
    words_of,
)
from xaicli.vocabulary import LABEL, PREDICTION, Group

TONES = {Group.MAX: Tone.MAX, Group.MIN: Tone.MIN, Group.LISTED: Tone.LISTED}
_HEADINGS = {Group.MAX: "Highest", Group.MIN: "Lowest", Group.LISTED: "Listed"}
_LOG_DECADES = 2
_CARDS = 24
_LINES = {
    Group.MAX: "Highest: solid, vermilion.",
    Group.MIN: "Lowest: dashed, blue.",
    Group.LISTED: "Listed: dotted, green.",
}
_PEOPLE = "Grey: the middle 90 % and 50 % of all samples, and their median."


@dataclass(frozen=True)
class Subject:
    """One (mode, ds_id, metric) and its part of the answer: nothing is ever pooled across these."""

    mode: str
    ds_id: str
    metric: str
    rows: tuple[Mapping[str, Any], ...]
    population: tuple[Mapping[str, Any], ...] = ()
    over: str | None = None
    """What its picture is drawn over: `epoch`, `step` or `pass`."""
    conditions: str = ""
    """The options that left rows out one by one, as named in a sentence."""
    stat: str = "last"
    """What of a history is its score."""
    reduce: str = ""
    """What of several rows of a sample in a table is its value; "" where that is the metric itself."""
    lack: str = "is finite"
    """What no value is or does, where there is none to draw."""

    @property
    def value(self) -> str:
        """What a history is of: the metric, or how many rows of a table have it."""
        return f"{self.reduce} of {self.metric}" if self.reduce else self.metric

    @property
    def score(self) -> str:
        """What ranks the samples: the last value, or a statistic of all of them."""
        return self.value if self.stat == "last" else f"{self.stat} of {self.value}"

    @property
    def shown_with(self) -> str:
        """What a stale sample is shown with."""
        return "shown with the last value there is" if self.stat == "last" else f"shown with the {self.score} before"

    @property
    def numbers(self) -> list[float]:
        """What is told of it in words, cards and a table: the scores, and the medians where they change."""
        first, last = _medians(self)
        return [row["score"] for row in self.rows if _finite(row["score"])] + ([first, last] if first != last else [])

    @property
    def times(self) -> Times:
        """The time axis that its picture, cards and table share."""
        histories = (point for row in self.rows for point in row["history"] or ())
        return Times.of(self.over, (*self.population, *histories))

    @property
    def words(self) -> str:
        """What it is about, in a heading."""
        return words_of(self.metric, self.mode, self.ds_id)


def subjects(answer: Answer, metrics: Sequence[str], population: pl.DataFrame | None) -> Iterator[Subject]:
    """The parts of an answer of histories, in its own order."""
    data, over, limits = answer.data, answer.selection.get("axis"), conditions(answer.selection)
    lack = "is finite" if answer.counts.non_finite else "was recorded"
    how = (str(answer.selection.get("stat") or "last"), _reduced(answer), lack)
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in data.iter_rows(named=True):
        metric = row.get("metric") or (metrics[0] if metrics else "")
        groups.setdefault((row["mode"], row["ds_id"], metric), []).append(row)
    bands: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    if population is not None and population.height:
        for row in population.sort("epoch").iter_rows(named=True):
            bands.setdefault((row["mode"], row["ds_id"], row["metric"]), []).append(row)
    # A part whose samples are all gone still shows the population it has.
    for key in [*groups, *(key for key in bands if key not in groups)]:
        yield Subject(*key, tuple(groups.get(key, ())), tuple(bands.get(key, ())), over, limits, *how)


def _reduced(answer: Answer) -> str:
    """What of several rows of a sample in a table is its value; "" where a sample has one row, or it is their mean."""
    reduce = str(answer.selection.get("reduce") or "mean") if answer.selection.get("table") else "mean"
    return reduce if reduce == "count" or (reduce != "mean" and answer.counts.duplicates) else ""


def blocks(subject: Subject, page: Page) -> list[Block]:
    """Chart, cards and table of one subject; a sentence where there is nothing to draw."""
    finite = [p["value"] for row in subject.rows for p in row["history"] or () if _finite(p["value"])]
    finite += [row["q50"] for row in subject.population if _finite(row["q50"])]
    if not subject.rows and not finite:
        lack = f"No sample has a finite {subject.metric} here{among(subject.conditions)}"
        return [Text(f"{lack}: there is nothing to rank or draw.", Tone.BAD)]
    out: list[Block] = []
    if finite:
        out.append(_chart(subject, page, finite))
    else:
        none = f"No value of {subject.metric} {subject.lack} here{among(subject.conditions)}"
        out.append(Text(f"{none}: there is no line to draw.", Tone.BAD))
    out += list(_galleries(subject, page))
    out.append(_table(subject, page))
    return out


def sentence(subject: Subject, page: Page) -> str:
    """What the histories of one subject say, with figures."""
    said: list[str] = []
    first, last = _medians(subject)
    told = subject.numbers
    in_words = dict(zip(told, shorts(told, 3), strict=True))
    if first != last:
        way = "falls" if last < first else "rises"
        said.append(f"The median {subject.value} {way} from {in_words[first]} to {in_words[last]}.")
    for group, word in ((Group.MAX, "highest"), (Group.MIN, "lowest")):
        rows = [row for row in subject.rows if row["group"] == group and _finite(row["score"])]
        if not rows:
            continue
        # Their range and not "so much or more": a bound that is rounded is untrue of one of them.
        low, high = (in_words[pick(row["score"] for row in rows)] for pick in (min, max))
        many = len(rows) > 1
        by = "" if subject.score == subject.metric else f" by {subject.score}"
        said.append(
            f"The {f'{len(rows)} ' if many else ''}{word} {'samples' if many else 'sample'}{by} "
            f"{'are' if many else 'is'} at {low if low == high else f'{low} to {high}'}{_wrong(subject, rows, page)}."
        )
    return " ".join((*_since_when(subject), *(said or [_of_listed(subject.score, in_words, subject.conditions)])))


def _since_when(subject: Subject) -> Iterator[str]:
    """Where the last epochs have no finite value: of which epoch the figures are."""
    points = [(point["epoch"], point["value"]) for row in subject.rows for point in row["history"] or ()]
    everyone = [(row["epoch"], row["q50"]) for row in subject.population]
    finite = [epoch for epoch, value in (*points, *everyone) if _finite(value)]
    last = max((epoch for epoch, _ in (*points, *everyone)), default=None)
    if finite and last is not None and max(finite) < last:
        whose = "No sample has" if everyone else "None of the samples shown has"
        limits = among(subject.conditions)
        yield (
            f"{whose} a finite {subject.metric} after epoch {max(finite)}{limits}, and the last is epoch {last}: "
            f"no figure here is of a later epoch than {max(finite)}."
        )


def _of_listed(score: str, in_words: Mapping[float, str], limits: str) -> str:
    """What there is to say of scores where neither the highest nor the lowest samples were asked for."""
    if not in_words:
        return f"No sample has a finite {score}{among(limits)}."
    low, high = (in_words[pick(in_words)] for pick in (min, max))
    return f"The listed samples are at {low} to {high}." if low != high else f"What is listed is at {low}."


def no_samples(answer: Answer) -> str:
    """Why there is no sample: none was asked for, none has a value that can be ranked, or none is there."""
    selection = answer.selection
    if selection.get("max") == 0 and selection.get("min") == 0 and not selection.get("ids"):
        return "No samples are asked for: --max and --min are 0, and no --ids are given."
    if answer.counts.non_finite:
        metrics = listed([str(metric) for metric in as_list(selection.get("metric"))])
        limits = conditions(selection)
        recorded = "is recorded there" if limits else "was recorded"
        return f"No sample has a finite {metrics}{among(limits)}: what {recorded} is NaN or infinite."
    return "No samples: the selection leaves nothing."


def _medians(subject: Subject) -> tuple[float, float]:
    """The first and the last median; twice 0.0 where there are none."""
    known = [row["q50"] for row in subject.population if _finite(row["q50"])]
    return (known[0], known[-1]) if known else (0.0, 0.0)


def _wrong(subject: Subject, rows: Sequence[Mapping[str, Any]], page: Page) -> str:
    known = [
        (row["label"], prediction)
        for row in rows
        if (prediction := _prediction(subject, row, page)) is not None
        and row["label"] is not None
        # A predicted number is near or far, never right or wrong.
        and not isinstance(row["label"], float)
        and page.facts.may_be_true(row["label"], prediction)
    ]
    wrong = sum(label != prediction for label, prediction in known)
    if not known:
        return ""
    which = (
        "none is" if not wrong else "all are" if wrong == len(known) > 1 else f"{wrong} {'is' if wrong == 1 else 'are'}"
    )
    truth = page.facts.label_key
    how = "predicted wrongly" if truth == LABEL else f"predicted as something else than {truth} says"
    if len(known) < len(rows):
        return f"; of the {len(known):,} of them with a label and a prediction there, {which} {how}"
    return f"; {which} {how}" if len(rows) > 1 else f"; {how}" if wrong else ""


def place_shown(history: Iterable[Mapping[str, Any]] | None) -> tuple[int, int | None] | None:
    """The (epoch, pass) of a history that is shown of its sample: the last with a finite value, else the last."""
    points = list(history if history is not None else ())
    last = next((point for point in reversed(points) if _finite(point["value"])), points[-1] if points else None)
    return None if last is None else (last["epoch"], last.get("pass"))


def _prediction(subject: Subject, row: Mapping[str, Any], page: Page) -> Any:
    """What was predicted of a sample at the place that is shown of it; None where nothing was."""
    place = place_shown(row["history"])
    return None if place is None else page.predictions.get((subject.mode, subject.ds_id, row["sample_id"], *place))


def _chart(subject: Subject, page: Page, finite: Sequence[float]) -> LineChart:
    """The histories over time; over decades of values on a logarithmic scale."""
    people = subject.population
    times = subject.times
    xs = tuple(times.x(row) for row in people)
    bands = tuple(
        Band(words, xs, tuple(row[low] for row in people), tuple(row[high] for row in people))
        for words, low, high in (("middle 90 %", "q05", "q95"), ("middle 50 %", "q25", "q75"))
        if people
    )
    lines = [Series("median", xs, tuple(row["q50"] for row in people), Tone.MEDIAN)] if people else []
    drawn: set[Any] = set()
    for row in subject.rows:
        if row["sample_id"] in drawn:
            continue
        drawn.add(row["sample_id"])
        history = times.with_gaps(row["history"] or ())
        lines.append(
            Series(
                name=sample_name(row["sample_id"]),
                x=tuple(times.x(point) for point in history),
                y=tuple(point["value"] for point in history),
                tone=TONES[Group(row["group"])],
                key=page.keys(subject.mode, subject.ds_id, row["sample_id"]),
                note=in_hover(row),
            )
        )
    legend = [words for group, words in _LINES.items() if any(row["group"] == group.value for row in subject.rows)]
    if people:
        legend.append(_PEOPLE)
    if any(None in line.y for line in lines):
        legend.append("A gap in a line: no finite value is there.")
    return LineChart(
        name=page.names("samples", subject.mode, subject.ds_id, subject.metric),
        title=f"History of {subject.words}",
        x_label=times.over.value,
        y_label=subject.value,
        series=tuple(lines),
        bands=bands,
        legend=" ".join(legend),
        alt=f"{subject.value} of {count(len(drawn), 'sample')} over {times.many}, {subject.mode}, "
        f"over the population's bands. {sentence(subject, Page())}",
        y_log=min(finite) > 0 and max(finite) / min(finite) > 10**_LOG_DECADES,
        other_axis=times.other,
    )


def _galleries(subject: Subject, page: Page) -> Iterator[Gallery]:
    scores = shorts([row["score"] for row in subject.rows], apart=spread(subject.numbers) or math.inf)
    apart, times = spread([row["label"] for row in subject.rows if isinstance(row["label"], float)]), subject.times
    for group in Group:
        rows = [(row, score) for row, score in zip(subject.rows, scores, strict=True) if row["group"] == group]
        cards = tuple(_card(subject, row, score, page, times, apart=apart) for row, score in rows[:_CARDS])
        if cards:
            left_out = len(rows) - len(cards)
            note = f"and {left_out:,} more in the table" if left_out else ""
            yield Gallery(f"{_HEADINGS[group]} {subject.score}", cards, note)


def _card(subject: Subject, row: Mapping[str, Any], score: str, page: Page, times: Times, *, apart: float) -> Card:
    sample_id, label = row["sample_id"], row["label"]
    prediction = _prediction(subject, row, page)
    verdict, right = answer_in_words(label, prediction, page, apart=apart)
    lines = [f"{subject.score} {score}" + (" (stale)" if row["stale"] else "")]
    return Card(
        key=page.keys(subject.mode, subject.ds_id, sample_id),
        title=sample_name(sample_id),
        lines=(*lines, verdict) if right and verdict else tuple(lines),
        tone=TONES[Group(row["group"])],
        image=page.images.get((subject.mode, subject.ds_id, sample_id)),
        sparkline=() if times.are_one else times.course(row["history"]),
        links=saliency_link(subject.mode, subject.ds_id, sample_id),
        deep_link=str(sample_id),
        place=place_of(subject.mode, subject.ds_id),
        verdict="" if right else verdict,
        facts=on_card(row, page.facts.path),
    )


def answer_in_words(label: Any, prediction: Any, page: Page, *, apart: float = 0.0) -> tuple[str, bool]:
    """Label and prediction in a few words, and whether they agree (or nothing speaks against it, as of numbers).

    Args:
        label, prediction: As they were recorded.
        page: Knows their names.
        apart: How far the labels shown beside this one lie apart, where they are numbers.
    """
    if isinstance(label, float) and isinstance(prediction, float) and label != prediction:
        apart = min(abs(label - prediction), apart or math.inf)
    if label is None and prediction is None:
        return "", True
    if prediction is None:
        return f"label {page.label_name(label, apart=apart)}", True
    if label is None:
        return f"→ {page.prediction_name(prediction, apart=apart)}", True
    if not page.facts.may_be_true(label, prediction):
        called = page.label_name(label, apart=apart)
        said = called if page.facts.label_key == PREDICTION else f"{page.facts.label_key} {called}"
        return f"{said}, predicted {page.prediction_name(prediction, apart=apart)}", True
    if label == prediction and not isinstance(label, float):
        return f"{page.label_name(label)} ✓", True
    said = f"{page.label_name(label, apart=apart)} → {page.prediction_name(prediction, apart=apart)}"
    return said, isinstance(label, float)


def _table(subject: Subject, page: Page) -> Table:
    predictions = [_prediction(subject, row, page) for row in subject.rows]
    predicted = any(prediction is not None for prediction in predictions)
    labelled = any(row["label"] is not None for row in subject.rows)
    stale = any(row["stale"] for row in subject.rows)
    columns = [Column("group"), Column("sample")]
    columns += [Column("label")] if labelled else []
    columns += [Column("prediction", in_files=False)] if predicted else []
    known = FactColumns(subject.rows, page.facts.path)
    score = Column("score", Cell.NUMBER, kept=True, apart=spread(subject.numbers) or math.inf)
    times = subject.times
    columns += [*known.columns, score]
    columns += [] if times.are_one else [Column("history", Cell.SPARKLINE)]
    columns += [Column("state", kept=True)] if stale else []
    rows = []
    for row, prediction in zip(subject.rows, predictions, strict=True):
        shown: list[Any] = [f"{row['group']} {row['rank']}", str(row["sample_id"])]
        shown += [page.label_cell(row["label"])] if labelled else []
        shown += [page.prediction_cell(prediction)] if predicted else []
        history = [] if times.are_one else [times.course(row["history"])]
        end = ["stale" if row["stale"] else ""] if stale else []
        rows.append((*shown, *known.cells(row), row["score"], *history, *end))
    return Table(
        name=page.names("table", subject.mode, subject.ds_id, subject.metric),
        title=f"Values of {subject.words}",
        columns=tuple(columns),
        rows=tuple(rows),
        note="; ".join(
            filter(None, (_of_stale(subject) if stale else "", _unpredicted(subject, predictions), known.note))
        ),
        keys=tuple(page.keys(subject.mode, subject.ds_id, row["sample_id"]) for row in subject.rows),
        terminal_rows=40,
        rest_in=IN_CSV,
    )


def _unpredicted(subject: Subject, predictions: Sequence[Any]) -> str:
    """How many samples have no prediction where others have one."""
    lacking = {row["sample_id"] for row, found in zip(subject.rows, predictions, strict=True) if found is None}
    if not lacking or len(lacking) == len({row["sample_id"] for row in subject.rows}):
        return ""
    return f"{len(lacking):,} {'has' if len(lacking) == 1 else 'have'} no prediction at the place shown"


def _of_stale(subject: Subject) -> str:
    """What is missing of the stale samples in the last epoch: their rows, or a value in them that is finite."""
    if subject.conditions:
        n = len({row["sample_id"] for row in subject.rows if row["stale"]})
        lack = f"{n:,} {'has' if n == 1 else 'have'} no finite value in the last epoch"
        return f"stale: {lack}{among(subject.conditions)}, {subject.shown_with}"
    points = [point for row in subject.rows for point in row["history"] or ()]
    last = max((point["epoch"] for point in (*subject.population, *points)), default=None)
    stale = {row["sample_id"]: row["history"] or () for row in subject.rows if row["stale"]}
    present = sum(any(point["epoch"] == last for point in history) for history in stale.values())
    never = sum(not any(_finite(point["value"]) for point in history) for history in stale.values())
    said = [
        f"{n:,} {one if n == 1 else more}"
        for n, one, more in (
            (len(stale) - present, "is absent from the last epoch", "are absent from the last epoch"),
            (present, "is in the last epoch without a finite value", "are in the last epoch without a finite value"),
        )
        if n
    ]
    shown = f", {subject.shown_with}" if never < len(stale) else ""
    whose = "it has" if len(stale) == 1 else f"{never:,} of them {'has' if never == 1 else 'have'}"
    none = f"; {whose} no finite value at all" if never else ""
    return f"stale: {' and '.join(said)}{shown}{none}"


def long_rows(data: pl.DataFrame, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The histories as rows of one value each, for a CSV file."""
    found: list[dict[str, Any]] = []
    for row in data.iter_rows(named=True):
        head = {key: value for key, value in row.items() if key != "history"}
        head.setdefault("metric", metrics[0] if metrics else "")
        found += ({**head, **point} for point in row["history"] or ())
    return found


def saliency_link(mode: str, ds_id: str, sample_id: int | str) -> tuple[tuple[str, str], ...]:
    """The link to a sample's saliency."""
    return (("saliency", address_of("saliency.html", sample_id, place_of(mode, ds_id))),)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def samples_report(answer: Answer, page: Page | None = None, *, population: pl.DataFrame | None = None) -> Report:
    """The page of `xai samples`.

    Args:
        answer: Rows `{mode, ds_id, sample_id, label, group, rank, score, stale, history}`, and `metric` with several.
        page: The run, with thumbnails and predictions of the samples.
        population: Quantiles per (mode, ds_id, metric, epoch): step, n, q05, q25, q50, q75, q95.
    """
    page = page or Page()
    metrics = [str(metric) for metric in as_list(answer.selection.get("metric"))]
    parts = list(subjects(answer, metrics, population))
    report = report_of(
        answer,
        page,
        [Part(part.words, blocks(part, page)) for part in parts],
        name="samples",
        title="Sample histories: " + (", ".join(metrics) or "nothing recorded"),
        sentence=headline([(part.words, sentence(part, page)) for part in parts]),
        nothing=no_samples(answer),
        rules=(("score", score_rule(answer)), ("ties", "the smaller sample_id first")),
        tables={"samples": lambda: long_rows(answer.data, metrics)},
    )
    return replace(report, absent=BY_IDS)


def score_rule(answer: Answer) -> str:
    """What ranks the samples, in words."""
    stat = str(answer.selection.get("stat") or "last")
    return "the value in the sample's last recorded epoch" if stat == "last" else f"{stat} over the recorded epochs"
