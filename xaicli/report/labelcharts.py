"""Charts of each label's metric over time: an overview, and small multiples with bands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from xaicli.report.charts import Band, LineChart, Multiples, Series, Times, Tone
from xaicli.report.numbers import count, cut_apart, listed, short, shorts, spread
from xaicli.report.page import Names
from xaicli.vocabulary import Bounds

BAND_WORDS = {
    Bounds.STD: "mean ± standard deviation of the label's samples (n − 1): their spread, not the error of the mean",
    Bounds.RANGE: "lowest to highest sample of the label",
    Bounds.QUANTILE: "5 % to 95 % of the label's samples",
    Bounds.CI: "95 % confidence interval of the mean",
    Bounds.NONE: "no band",
}
TITLES = {
    Bounds.STD: "± std",
    Bounds.RANGE: "min–max",
    Bounds.QUANTILE: "5–95 %",
    Bounds.CI: "95 % interval",
    Bounds.NONE: "no band",
}
_COLOURED = 12
_EXTREMES = 5
_LINES = 60
CELLS = 24
_POINTS = 100


@dataclass(frozen=True)
class LabelHistory:
    """One label of one (mode, ds_id, metric).

    Of thousands of labels a page shows few whole, so their rows stay a frame until somebody asks.
    """

    name: str
    frame: pl.DataFrame
    """Its rows by epoch and pass."""
    last: Mapping[str, Any]
    """The label's statistics where it last has a finite mean."""
    means: tuple[float | None, ...]
    """The mean of each row; None where no value is finite."""
    last_epoch: int | None = None
    """The last epoch that any label has; the label's own without it."""
    times: Times = field(default_factory=Times)
    """The time axis that it shares with the other labels."""
    is_in_last: bool = False
    """Whether one that has no finite value in the last epoch has samples there."""

    @classmethod
    def all_of(
        cls, rows: pl.DataFrame, times: Times, name_of: Callable[[Mapping[str, Any]], str]
    ) -> list[LabelHistory]:
        """Each label of one (mode, ds_id, metric), by label.

        Args:
            rows: Of all labels, each label's together and in time.
            times: The time axis.
            name_of: What a label is called, by one of its rows.
        """
        means, found, at = rows["mean"].to_list(), [], 0
        end = max(rows["epoch"].to_list())
        for n in rows["label"].rle().struct.field("len").to_list():
            mine = tuple(means[at : at + n])
            # Its last finite figures: where it has none later on, there is a gap.
            known = next((i for i in reversed(range(n)) if finite(mine[i])), n - 1)
            last = rows.row(at + known, named=True)
            found.append(cls(name_of(last), rows.slice(at, n), last, mine, end, times))
            at += n
        return found

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """Its rows by epoch and pass, with an empty one wherever it is absent between two of them: there is a gap."""
        return self.times.with_gaps(self.frame.to_dicts())

    @property
    def has_gap(self) -> bool:
        """Whether its line has one: no value is finite there, or none is there."""
        if None in self.means or len(self.means) == len(self.times.places):
            return None in self.means
        return bool(self.times.gaps(self.frame.select(pl.col("^(epoch|pass)$")).to_dicts()))

    def x(self, row: Mapping[str, Any]) -> float:
        """Where one of its rows lies on the time axis."""
        return self.times.x(row)

    @property
    def lasts(self) -> bool:
        """Whether it has a finite mean in the last epoch of all labels."""
        return finite(self.last["mean"]) and self.last_epoch in (None, self.last["epoch"])

    @property
    def course(self) -> tuple[float | None, ...]:
        """Its means at every place of the time axis."""
        if len(self.means) == len(self.times.places) or not self.times.places:
            return self.means
        places = self.frame.select(pl.col("^(epoch|pass)$")).to_dicts()
        return self.times.course({**place, "value": mean} for place, mean in zip(places, self.means, strict=True))

    @property
    def when(self) -> str:
        """When its last values are of, in words."""
        return (
            "at the last epoch" if self.last_epoch in (None, self.last["epoch"]) else f"at epoch {self.last['epoch']}"
        )

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Sorts by the last finite mean, highest first; labels without one, or not in the last epoch, at the end."""
        means = [mean for mean in self.means if mean is not None and math.isfinite(mean)]
        return (bool(means) and not self.lasts, -means[-1] if means else math.inf, self.name)


def _missing_at_the_end(gone: Sequence[LabelHistory], limits: str) -> str:
    """Which labels have no value at the end: those that are not in the last epoch, and those without a finite one."""
    away = [label.name for label in gone if not label.is_in_last]
    there = [label.name for label in gone if label.is_in_last]
    said = f" Absent from the last epoch{limits}: {listed(away, 4)}." if away else ""
    return said + (f" In the last epoch without a finite value{limits}: {listed(there, 4)}." if there else "")


def label_sentence(labels: Sequence[LabelHistory], limits: str = "", bound: Bounds = Bounds.STD) -> str:
    """Which labels stand out at the end, with figures; at an earlier epoch where nothing is finite at the end.

    Args:
        labels: From the highest last mean to the lowest.
        limits: Among which rows, where conditions leave rows out.
        bound: The band beside a mean, which is named unless it is the deviation.
    """
    ends = [label.last["epoch"] for label in labels if finite(label.last["mean"])]
    if not ends:
        return f"{count(len(labels), 'label')}; no finite value{limits}."
    end, last = max(ends), labels[0].last_epoch
    known = [label for label in labels if label.last["epoch"] == end and finite(label.last["mean"])]
    gone = [label for label in labels if finite(label.last["mean"]) and label.last["epoch"] != end]
    is_over = last in (None, end)
    when = "the last epoch" if is_over else f"epoch {end}"
    before = "" if is_over else f"No label has a finite value after epoch {end}{limits}, and the last is epoch {last}. "
    absent = _missing_at_the_end(gone, limits)
    if not is_over:
        absent = (
            f" Without a finite value in {when}{limits}: {listed([label.name for label in gone], 4)}." if gone else ""
        )
    top, low = known[0], known[-1]
    spreads, names = _spreads(known, bound, TITLES[bound]), cut_apart([label.name for label in labels])
    if len(known) == 1:
        n = count(top.last["n"], "value")
        return f"{before}One label at {when}, {names[top.name]}: {spreads[0]} there, over {n}.{absent}"
    said = (
        f"{before}Highest mean at {when}: {names[top.name]} ({spreads[0]}). Lowest: {names[low.name]} ({spreads[-1]})."
    )
    risen = [label.name for label in known if (first := _first(label)) is not None and label.last["mean"] > first]
    if 0 < len(risen) < len(known):
        said += f" {len(risen)} of {len(labels):,} labels {'ends' if len(risen) == 1 else 'end'} higher than "
        said += f"{'it' if len(risen) == 1 else 'they'} began: {listed(risen, 4)}."
    return said + absent


def gap_words(labels: Sequence[LabelHistory]) -> str:
    """What a caption says of gaps: that they are where no value is finite, and from when on none is."""
    ends = [label.last["epoch"] for label in labels if finite(label.last["mean"])]
    if ends and labels[0].last_epoch is not None and max(ends) < labels[0].last_epoch:
        return f" After epoch {max(ends)} no value is finite."
    return " A gap in a line: no value is finite there." if any(label.has_gap for label in labels) else ""


def overview(words: str, labels: Sequence[LabelHistory], names: Names, key: str, limits: str = "") -> LineChart:
    """Each label's mean in one chart; of very many, the highest and lowest over the spread of all.

    Args:
        words: What the labels are measured by, in words.
        labels: From the highest last mean to the lowest.
        names: Hands out file names.
        key: The start of the keys that link a label's lines.
        limits: Among which rows, where conditions leave rows out.
    """
    many = len(labels) > _COLOURED
    extremes = {*range(_EXTREMES), *range(len(labels) - _EXTREMES, len(labels))}
    drawn = [(i, label) for i, label in enumerate(labels) if not many or i in extremes or len(labels) <= _LINES]
    series = []
    for order, (i, label) in enumerate(drawn):
        tone = Tone.PLAIN if not many else Tone.MAX if i < _EXTREMES else Tone.MIN if i in extremes else Tone.FAINT
        rows = label.rows
        series.append(
            Series(
                name=label.name,
                x=tuple(label.x(row) for row in rows),
                y=tuple(row["mean"] for row in rows),
                tone=tone,
                key=f"{key}-{i}",
                counts=tuple(row["n"] or 0 for row in rows),
                colour=None if many else order,
            )
        )
    bands: tuple[Band, ...] = ()
    legend = "Mean of each label's samples."
    if many:
        legend += f" Solid vermilion: the {_EXTREMES} highest at the last epoch; dashed blue: the {_EXTREMES} lowest"
        legend += "; grey: the others." if len(labels) <= _LINES else "."
    if len(labels) > _LINES:
        bands, median = _spread_of_labels(labels)
        series.append(median)
        legend += f" Grey: the middle 90 % and 50 % of all {len(labels):,} labels' means, and their median."
    legend += gap_words(labels)
    return LineChart(
        name=names("labels", words),
        title=f"Mean {words} of each label",
        x_label=labels[0].times.over.value,
        y_label="mean",
        series=tuple(sorted(series, key=lambda line: line.tone is not Tone.FAINT)),
        bands=bands,
        legend=legend,
        other_axis=labels[0].times.other,
        alt=f"Mean of {count(len(labels), 'label')} over {labels[0].times.many}. {label_sentence(labels, limits)}",
    )


def _spread_of_labels(labels: Sequence[LabelHistory]) -> tuple[tuple[Band, ...], Series]:
    frame = _means(labels)
    quantiles = [pl.col("mean").quantile(q, "linear").alias(str(q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    table = _everywhere(frame.group_by("x").agg(quantiles), labels)
    x = tuple(table["x"])
    bands = tuple(
        Band(title, x, tuple(table[low]), tuple(table[high]))
        for title, low, high in (("middle 90 %", "0.05", "0.95"), ("middle 50 %", "0.25", "0.75"))
    )
    return bands, Series("median", x, tuple(table["0.5"]), Tone.MEDIAN)


def of_everyone(labels: Sequence[LabelHistory]) -> Series:
    """The mean of all samples whatever their label: each label's mean weighted by its number of samples."""
    mean = (pl.col("mean") * pl.col("n")).sum() / pl.col("n").sum()
    table = _everywhere(_means(labels).filter(pl.col("n") > 0).group_by("x").agg(mean), labels)
    return Series("all samples", tuple(table["x"]), tuple(table["mean"]), Tone.REFERENCE)


def _everywhere(table: pl.DataFrame, labels: Sequence[LabelHistory]) -> pl.DataFrame:
    """Figures by `x` at every place of the time axis; null, a gap, where no label has a finite mean."""
    places = pl.DataFrame({"x": sorted(labels[0].times.places.values())}, schema={"x": pl.Float64}).unique("x")
    return (places if places.height else table.select("x")).join(table, on="x", how="left").sort("x")


def _means(labels: Sequence[LabelHistory]) -> pl.DataFrame:
    """Every finite mean of every label: where it lies on the time axis, and of how many samples it is."""
    frame = pl.concat([label.frame.select(pl.col("^(epoch|pass|mean|n)$")) for label in labels])
    if "pass" not in frame.columns:
        frame = frame.with_columns(pl.lit(0).alias("pass"))
    frame = frame.with_columns(pl.col("pass").fill_null(0)).filter(pl.col("mean").is_finite())
    distinct = frame.select("epoch", "pass").unique()
    places = distinct.with_columns(x=pl.Series([labels[0].x(row) for row in distinct.to_dicts()], dtype=pl.Float64))
    return frame.join(places, on=["epoch", "pass"])


def small_multiples(
    words: str,
    shown: Sequence[tuple[str, LabelHistory]],
    everyone: Series | None,
    bound: Bounds,
    names: Names,
    *,
    total: int,
) -> Multiples:
    """A small chart a label: its mean, its band, and the mean of all samples.

    Args:
        words: What the labels are measured by, in words.
        shown: (key, label) of each cell.
        everyone: The mean of all samples; None where there is one label.
        bound: What the band stands for.
        names: Hands out file names.
        total: How many labels there are.
    """
    stride = max(1, math.ceil(max(len(label.rows) for _, label in shown) / _POINTS))
    # Mean minus deviation may lie where no value can: a loss has none below 0.
    every = [row for _, label in shown for row in label.rows]
    least = min((row["min"] for row in every if row["min"] is not None), default=-math.inf)
    floor = 0.0 if least >= 0 else -math.inf
    spreads = _spreads([label for _, label in shown], bound)
    told = cut_apart([label.name for _, label in shown])
    charts = tuple(
        _small_chart(key, label, f"{told[label.name]}: mean {said}", said, everyone, bound, stride, floor)
        for (key, label), said in zip(shown, spreads, strict=True)
    )
    cut_off = any(_low(row, bound) < floor for row in every)
    limits = _limits(charts)
    several = len(charts) > 1
    charts = tuple(replace(c, y_limits=limits, y_own=_limits([c]) if several else None) for c in charts)
    legend = f"Band: {BAND_WORDS[bound]}."
    legend += " Cut at 0, below which no value lies." if cut_off else ""
    legend += " Dashed grey: all samples." if len(shown) > 1 else ""
    if total > len(shown):
        half = len(shown) // 2
        legend += f" The {half} highest and {half} lowest of {total:,} labels; the table has all."
    legend += gap_words([label for _, label in shown])
    if stride > 1:
        legend += f" One epoch in {stride} drawn."
    return Multiples(
        name=names("labels", words, bound),
        title=f"{words} of each label, {TITLES[bound]}",
        charts=charts,
        legend=legend,
        alt=f"{count(len(shown), 'small chart')}, one a label, mean with band: {BAND_WORDS[bound]}.",
    )


def _low(row: Mapping[str, Any], bound: Bounds) -> float:
    """The lower end of a label's band."""
    pair = (row["bounds"] or {}).get(bound)
    return math.inf if not pair or pair[0] is None else float(pair[0])


def _small_chart(
    key: str,
    label: LabelHistory,
    alt: str,
    said: str,
    everyone: Series | None,
    bound: Bounds,
    stride: int,
    floor: float,
) -> LineChart:
    every = label.rows
    rows = [row for i, row in enumerate(every) if (len(every) - 1 - i) % stride == 0]
    x = tuple(label.x(row) for row in rows)
    pairs = [(row["bounds"] or {}).get(bound) or (None, None) for row in rows]
    low = tuple(None if p[0] is None else max(p[0], floor) for p in pairs)
    band = Band(TITLES[bound], x, low, tuple(p[-1] for p in pairs), key=key)
    return LineChart(
        name=key,
        title=label.name,
        x_label=label.times.over.value,
        y_label="mean",
        series=(
            *([everyone] if everyone else []),
            Series(
                label.name, x, tuple(row["mean"] for row in rows), key=key, counts=tuple(row["n"] or 0 for row in rows)
            ),
        ),
        bands=() if bound is Bounds.NONE else (band,),
        subtitle=f"{said} · n {label.last['n']:,}"
        + ("" if label.when.endswith("the last epoch") else f" · {label.when}"),
        alt=f"{alt} {label.when}, n {label.last['n']:,}",
    )


def _limits(charts: Sequence[LineChart]) -> tuple[float, float] | None:
    values = [v for chart in charts for line in chart.series for v in line.y if finite(v)]
    values += [v for chart in charts for band in chart.bands for v in (*band.low, *band.high) if finite(v)]
    known = [v for v in values if v is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    if low == high == 0:
        return -0.05, 1.0  # no loss, share or count lies below it
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def finite(value: Any) -> bool:
    """Whether there is a number to draw."""
    return value is not None and math.isfinite(value)


def _first(label: LabelHistory) -> float | None:
    return next((mean for mean in label.means if finite(mean)), None)


def _spreads(labels: Sequence[LabelHistory], bound: Bounds, name: str = "") -> list[str]:
    """Mean and band of each of some labels that are shown together; without a band the deviation.

    Args:
        labels: The labels.
        bound: The band.
        name: What to call it, where no title does.
    """
    means = [label.last["mean"] for label in labels]
    apart, said = spread(means), shorts(means, 3)
    if bound in (Bounds.STD, Bounds.NONE):
        sign = " ± " if bound is Bounds.STD else ", std "
        return [_with_deviation(label, mean, apart, sign) for label, mean in zip(labels, said, strict=True)]
    return [_with_band(label, mean, bound, f"{name} ".lstrip()) for label, mean in zip(labels, said, strict=True)]


def _with_band(label: LabelHistory, mean: str, bound: Bounds, name: str) -> str:
    if not finite(label.last["mean"]):
        return "no finite value"
    low, *_, high = (label.last["bounds"] or {}).get(bound) or (None, None)
    return f"{mean}, {name}{' to '.join(shorts((low, high), 2))}" if finite(low) and finite(high) else mean


def _with_deviation(label: LabelHistory, mean: str, apart: float, sign: str) -> str:
    last = label.last
    if not finite(last["mean"]):
        return "no finite value"
    # One sample has no spread.
    if last["n"] < 2 or not finite(last["std"]):
        return mean
    if last["std"] == 0:
        return f"{mean} for each of {count(last['n'], 'sample')}"
    # To the digits of its deviation: those beyond say nothing.
    return short(last["mean"], 3, apart=min(10 * last["std"], apart) or apart) + f"{sign}{short(last['std'], 2)}"
