"""The report of several runs side by side: a line a run over the epochs, the same for each label, samples as dots."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from xaicli.answer import Answer
from xaicli.diagnosis.paired import WELCH
from xaicli.queries.compare import FLIPPED, OTHERWISE, Comparison
from xaicli.report.charts import LineChart, Multiples, ScatterChart, Series, Tone
from xaicli.report.facts import FactColumns, points_named
from xaicli.report.model import IN_CSV, Block, Cell, Column, Report, Section, Table, Text, rest_of
from xaicli.report.numbers import count, cut_apart, listed, sample_name, short, shorts
from xaicli.report.page import Names, as_list, conditions, made, run_line, words_of
from xaicli.vocabulary import CORRECT

_CELLS = 24
_LOOKS = ("blue", "vermilion", "green", "purple", "ochre", "grey")
"""How the palette's lines look, in words."""


def mean_chart(comparison: Comparison, runs: Sequence[str], names: Names) -> Iterator[LineChart]:
    """The mean over all samples at every epoch, a line a run; nothing where no run has a finite value."""
    lines = [
        _line(run, order, frame.iter_rows(named=True))
        for order, (run, frame) in enumerate(zip(runs, comparison.means, strict=True))
    ]
    lines = [line for line in lines if any(y is not None for y in line.y)]
    if not lines:
        return
    words = words_of(comparison.metric, *comparison.pair)
    values = shorts([line.y[-1] for line in lines], 3)
    ends = [f"{line.name} {value}" for line, value in zip(lines, values, strict=True)]
    yield LineChart(
        name=names("compare", words),
        title=f"Mean {words} of each run",
        x_label="epoch",
        y_label="mean",
        series=tuple(lines),
        legend="Mean over all samples.",
        alt=f"Mean {words} over epochs, {count(len(lines), 'run')}; at the end {listed(ends, 6)}.",
    )


def _ends(lines: Sequence[Series]) -> str:
    """The last value of each line."""
    values = shorts([line.y[-1] for line in lines], 3)
    return ", ".join(f"{line.name} {value}" for line, value in zip(lines, values, strict=True))


def label_charts(comparison: Comparison, runs: Sequence[str], names: Names) -> Iterator[Multiples]:
    """A small chart a label with a line a run, those that changed most first."""
    lines: dict[str, list[Series]] = {}
    for order, (run, frame) in enumerate(zip(runs, comparison.labels, strict=True)):
        for (label,), rows in frame.group_by("name", maintain_order=True):
            line = _line(run, order, rows.sort("epoch").iter_rows(named=True))
            if any(y is not None for y in line.y):
                lines.setdefault(str(label), []).append(line)
    if not lines:
        return
    order_of = sorted(lines, key=lambda label: (-_change(lines[label]), label))
    told = cut_apart(order_of[:_CELLS])
    cells = tuple(
        LineChart(
            name=label,
            title=label,
            x_label="epoch",
            y_label="mean",
            series=tuple(lines[label]),
            subtitle=" → ".join(dict.fromkeys(shorts([line.y[-1] for line in (lines[label][0], lines[label][-1])], 2))),
            alt=f"{told[label]}: {_ends(lines[label][:6])}",
        )
        for label in order_of[:_CELLS]
    )
    more = f" The {_CELLS} that changed most of {len(lines):,} labels." if len(lines) > _CELLS else ""
    said = "; ".join(f"{run} {_look(order)}" for order, run in enumerate(runs[: len(_LOOKS)]))
    yield Multiples(
        name=names("compare-labels", words_of(comparison.metric, *comparison.pair)),
        title=f"Mean {words_of(comparison.metric, *comparison.pair)} of each label",
        charts=cells,
        legend=f"A line a run: {said}. Beside a label its last mean in the first run → in the last. "
        f"Each label on its own axis; the largest change first.{more}",
        alt=f"{count(len(cells), 'small chart')}, one a label, a line a run.",
    )


def sample_chart(comparison: Comparison, runs: Sequence[str], names: Names) -> Iterator[ScatterChart]:
    """Each sample's value in the first run against that in the last, coloured by which of them predicts it rightly."""
    frame = comparison.samples.filter(comparison.samples["first"].is_finite() & comparison.samples["last"].is_finite())
    if frame.is_empty():
        return
    short_names_of = cut_apart(runs)
    first, last = short_names_of[runs[0]], short_names_of[runs[-1]]
    groups = {
        (True, True): "right: both",
        (True, False): f"right: {first}",
        (False, True): f"right: {last}",
        (False, False): "right: neither",
    }
    found = tuple(groups.get(both) for both in zip(frame["first_correct"], frame["last_correct"], strict=True))
    known = any(found)
    yield ScatterChart(
        name=names("compare-samples", words_of(comparison.metric, *comparison.pair)),
        title=f"{words_of(comparison.metric, *comparison.pair)} of each sample",
        x_label=first,
        y_label=last,
        x=tuple(frame["first"]),
        y=tuple(frame["last"]),
        colour=found if known else (),
        colours=tuple(groups.values()) if known else (),
        names=points_named(frame, map(sample_name, frame["sample_id"])),
        legend=f"Each dot is a sample with its last value in each; above the dashed line it is higher in {last}.",
        alt=f"{comparison.metric} of {count(frame.height, 'sample')} in {first} against {last}.",
        diagonal=True,
    )


def _line(run: str, order: int, rows: Iterator[Mapping[str, Any]]) -> Series:
    points = list(rows)
    return Series(
        name=run,
        x=tuple(float(row["epoch"]) for row in points),
        y=tuple(row["mean"] for row in points),
        key=f"run-{order}",
        counts=tuple(row["n"] for row in points if "n" in row),
        colour=_colour(order),
    )


def _colour(order: int) -> int:
    """Which colour and dash a run's line takes: of two neighbours one is dashed, for colour alone may not be seen."""
    return order + len(_LOOKS) * (order % 2)


def _look(order: int) -> str:
    """How the line of a run looks where there is no room for its name."""
    return _LOOKS[order % len(_LOOKS)] + (", dashed" if order % 2 else "")


def _change(lines: Sequence[Series]) -> float:
    first, last = ([y for y in line.y if y is not None][-1] for line in (lines[0], lines[-1]))
    return abs(last - first)


_TITLES = {"metric": "Metrics", "label": "Labels", "sample": "Samples"}
_CHARTS: dict[str, Callable[[Comparison, Sequence[str], Names], Iterator[Block]]] = {
    "metric": mean_chart,
    "label": label_charts,
    "sample": sample_chart,
}
_MEASURED = {"metric": "Means of", "label": "Means of each label in", "sample": "Values in"}
_GROUPS = {"max": "grew most", "min": "fell most", "listed": "listed"}
_MANY = 0.1
"""The share of samples with other labels from which on a comparison says so in its first sentence."""
_FLIPS = 200
"""Flipped samples that a page shows of each metric."""


def compare_report(answer: Answer, comparisons: Sequence[Comparison] = ()) -> Report:
    """The page of `xai compare`.

    Args:
        answer: Rows kind, mode, ds_id, metric, label, name, sample_id, group, rank, values, n, epoch, pass, change,
            correct, stale.
        comparisons: The same over time; without it there are no pictures.
    """
    names = Names()
    runs = short_names([str(run) for run in as_list(answer.selection.get("runs"))], answer)
    rows = answer.data.to_dicts()
    differences = answer.extra.get("paired", [])
    sections = []
    if differences:
        sections.append(Section("Differences", names("part", "differences"), (_differences(differences, answer),)))
    for kind, title in _TITLES.items():
        chosen = [row for row in rows if row["kind"] == kind and not _is_one_of_many(row)]
        charts = [chart for comparison in comparisons for chart in _CHARTS[kind](comparison, runs, names)]
        if chosen:
            last = str(as_list(answer.selection.get("runs"))[-1])
            table = _table(kind, chosen, runs, last, conditions(answer.selection))
            if kind == "sample" and any(map(_is_one_of_many, rows)):
                said = rest_of(f"{_FLIPS} of those that flipped, the most changed", IN_CSV)
                table = replace(table, note="; ".join(filter(None, (said, table.note))))
            sections.append(Section(title, names("part", kind), (*charts, table)))
    nothing: tuple[Block, ...] = (Text("The runs share nothing to compare.", Tone.FAINT),)
    return Report(
        name="compare",
        title="Runs side by side",
        run_line=run_line(answer, None),
        sentence=" ".join((*_difference_words(differences, answer), _sentence(rows, runs))),
        sections=tuple(sections) or (Section("Runs", "runs", nothing),),
        made=made(
            answer,
            ("change", "the last run's value minus the first's"),
            ("difference", "of the samples both have; intervals of 95 %; see docs/statistics.md"),
        ),
        warnings=answer.warnings,
        tables={
            "compare": lambda: answer.data,
            "compare-differences": lambda: [_flat(row) for row in differences],
        },
    )


def _difference_words(rows: Sequence[Mapping[str, Any]], answer: Answer) -> Iterator[str]:
    """Which run is better, by the accuracy, or else by the first metric there is, of each (mode, ds_id)."""
    told = set()
    for row in sorted(rows, key=lambda row: row["metric"] != CORRECT):
        place = (row["mode"], row["ds_id"], row["first"], row["last"])
        if place in told:
            continue
        told.add(place)
        first, last = _names_of(row, answer)
        otherwise = _labelled_otherwise(answer.warnings, *place[:2], place[3])
        of_labels = f", but {otherwise} other labels: the two were asked different questions" if otherwise else ""
        yield f"{words_of(*place[:2])}: {_better(row, first, last, asked_alike=not otherwise)}{of_labels}."


def _labelled_otherwise(warnings: Iterable[str], mode: str, ds_id: str | None, last: str) -> str:
    """Of how many samples the labels differ, where these are a tenth or more: "112 of the 120 samples in both have"."""
    place = re.escape(" ".join(filter(None, (mode, ds_id))))
    said = re.compile(rf"([\d,]+) of the ([\d,]+) samples of {place} in both {OTHERWISE} {re.escape(last)} ")
    for found in filter(None, map(said.match, warnings)):
        differ, n = (int(number.replace(",", "")) for number in found.groups())
        if differ >= _MANY * n:
            return f"{differ:,} of the {n:,} samples in both have"
    return ""


def _better(row: Mapping[str, Any], first: str, last: str, *, asked_alike: bool = True) -> str:
    """Which of two is better and by how much, in words; better is neither that was asked something else."""
    size, low, high = row["difference"], row["low"], row["high"]
    ahead = row["better"] or ("last" if size >= 0 else "first")
    winner, loser = (last, first) if ahead == "last" else (first, last)
    if size < 0:
        size, low, high = -size, -high, -low
    right = row["metric"] == CORRECT
    what, factor = ("points of accuracy", 100) if right else (f"of mean {row['metric']}", 1)
    by = f"{short(factor * size, 2)} {what}"
    many = count(row["n"], "run") if row["method"] == WELCH else f"n {row['n']:,}"
    if row["stale"]:
        samples = "of them" if row["method"] != WELCH else "sample" if row["stale"] == 1 else "samples"
        many += f", {row['stale']:,} {samples} stale{' in some of them' if row['method'] == WELCH else ''}"
    interval = f"95 % {' to '.join(shorts((factor * low, factor * high), 2))}, {many}"
    if not size:
        return f"no difference in {what.removeprefix('of ')} at all between {first} and {last} ({interval})"
    if low <= 0:
        return f"no difference beyond chance: {winner} has {by} more than {loser} ({interval})"
    is_better = row["better"] and asked_alike
    said = f"is better than {loser} by {by}" if is_better else f"has {by} more than {loser}"
    return f"{winner} {said} ({interval})"


def _names_of(row: Mapping[str, Any], answer: Answer) -> tuple[str, str]:
    """The two that are compared, by their folders' names where these tell them apart, or their groups'."""
    paths = [str(run) for run in as_list(answer.selection.get("runs"))]
    names = dict(zip(paths, short_names(paths, answer), strict=True))
    both = names.get(row["first"], row["first"]), names.get(row["last"], row["last"])
    told = cut_apart([*names.values(), *both])
    return told[both[0]], told[both[1]]


def _differences(rows: Sequence[Mapping[str, Any]], answer: Answer) -> Table:
    table = []
    for row in rows:
        first, last = _names_of(row, answer)
        values = shorts(row["values"])
        interval = " to ".join(shorts((row["low"], row["high"]), 3))
        where, which = words_of(row["mode"], row["ds_id"]), "accuracy" if row["metric"] == CORRECT else row["metric"]
        better = {"first": first, "last": last}.get(row["better"], "–")
        cells = (f"{first} {values[0]}", f"{last} {values[1]}", row["difference"], interval, better, row["p"])
        end = [row["stale"]] if any(one["stale"] for one in rows) else []
        table.append((where, which, *cells, row["n"], row["method"], *end))
    stale = any(row["stale"] for row in rows)
    columns = (
        *(Column("where"), Column("mean of"), Column("first"), Column("last"), Column("difference", Cell.NUMBER)),
        *(Column("95 % interval"), Column("better"), Column("p", Cell.NUMBER), Column("n", Cell.INTEGER)),
        Column("method"),
        *([Column("stale", Cell.INTEGER)] if stale else []),
    )
    note = _of_stale(conditions(answer.selection))
    title = "Differences on the samples both have"
    return Table("differences", title, columns, tuple(table), note if stale else "", rest_in=IN_CSV)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    first, last = row["values"]
    return {**{key: value for key, value in row.items() if key != "values"}, "first_mean": first, "last_mean": last}


def _is_one_of_many(row: Mapping[str, Any]) -> bool:
    """Whether a flipped sample is beyond those that a page shows."""
    return bool(row["group"] == FLIPPED and row["rank"] > _FLIPS)


def short_names(paths: Sequence[str], answer: Answer) -> list[str]:
    """The runs by their folders' names; whole paths where these are not enough to tell them apart."""
    if not paths:
        most = max((len(values) for values in answer.data["values"].to_list() if values), default=0)
        return [f"run {number}" for number in range(1, most + 1)]
    last = [PurePath(path).name for path in paths]
    return last if len(set(last)) == len(last) else list(paths)


def _why(row: Mapping[str, Any]) -> str:
    """Why a sample is listed: its metric changed, or it became right or wrong, whatever the metric."""
    if row["group"] == FLIPPED:
        return "became right" if (row["correct"] or [None])[-1] else "became wrong"
    return f"{row['metric']} {_GROUPS.get(row['group'], row['group'])}"


def _sentence(rows: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> str:
    said = []
    for row in rows:
        if row["kind"] != "metric":
            continue
        what = f"{row['metric']} ({words_of(row['mode'], row['ds_id'])})"
        values = row["values"] or [None] * len(runs)
        if all(value is None for value in values):
            said.append(f"No run has a finite {what} to compare.")
        else:
            told = ["none" if value is None else text for value, text in zip(values, shorts(values, 3), strict=True)]
            said.append(f"Mean {what}: {', '.join(f'{one} in {run}' for run, one in zip(runs, told, strict=False))}.")
    # Whether a sample is right does not depend on the metric it is listed with.
    flipped = len({(row["mode"], row["ds_id"], row["sample_id"]) for row in rows if row.get("group") == "flipped"})
    if flipped:
        are = "is" if flipped == 1 else "are"
        said.append(f"{count(flipped, 'sample')} {are} right in one of first and last run and wrong in the other.")
    return " ".join(said) or "The runs have no metric in common."


def _place(epoch: int | None, turn: int | None) -> str:
    """The place that a mean is of; its pass where it is not the first one of the epoch."""
    return "–" if epoch is None else f"{epoch}, pass {turn}" if turn else str(epoch)


def _each(told: Iterable[str]) -> str:
    """What is told of each run; once where it is the same of all."""
    of_runs = ["–" if one == "None" else one for one in told]
    return of_runs[0] if len(set(of_runs)) == 1 else " | ".join(of_runs)


def _of_stale(limits: str) -> str:
    """What stale samples lack in a run, where rows are left out by conditions or not."""
    lack = f"no finite value in the run's last epoch{f' among the rows of {limits}' if limits else ''}"
    return f"stale: {lack}; the last there is counts"


def _table(kind: str, rows: Sequence[Mapping[str, Any]], runs: Sequence[str], run: str, limits: str) -> Table:
    heads = {"metric": ["mode", "metric"], "label": ["mode", "metric", "label"]}.get(kind, ["mode", "why", "sample"])
    columns = [*map(Column, heads), *(Column(run, Cell.NUMBER) for run in runs), Column("change", Cell.NUMBER)]
    columns += [] if kind == "sample" else [Column("n"), Column("epoch")]
    stale = kind == "sample" and any(any(row["stale"] or ()) for row in rows)
    columns += [Column("right")] if kind == "sample" else []
    columns += [Column("")] if stale else []
    facts = FactColumns(rows if kind == "sample" else (), run)
    columns += facts.columns
    shown = []
    for row in rows:
        mode = " ".join(part for part in (row["mode"], row["ds_id"]) if part)
        first = {
            "metric": [mode, row["metric"]],
            "label": [mode, row["metric"], row["name"]],
            "sample": [mode, _why(row), row["sample_id"]],
        }[kind]
        values = list(row["values"] or ())
        cells = [*first, *values, *[None] * (len(runs) - len(values)), row["change"]]
        if kind != "sample":
            cells += [_each(map(str, row["n"] or ())), _each(map(_place, row["epoch"] or (), row["pass"] or ()))]
        if kind == "sample":
            cells.append(" ".join({True: "✓", False: "✗"}.get(right, "–") for right in row["correct"] or ()))
        if stale:
            of_runs = [name for name, one in zip(runs, row["stale"] or (), strict=False) if one]
            cells.append(f"stale in {listed(of_runs, 3)}" if of_runs else "")
        shown.append((*cells, *facts.cells(row)))
    title = f"{_MEASURED[kind]} each run at its last epoch"
    note = "; ".join(filter(None, (_of_stale(limits) if stale else "", facts.note)))
    return Table(f"compare-{kind}", title, tuple(columns), tuple(shown), note, rest_in=IN_CSV)
