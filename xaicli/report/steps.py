"""The report of a training step by step: batch losses, spikes, and the samples that stood in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.steps import AS_WORDS, FEW, MOST_OF_IT, in_other_spikes, mean_column, other_spikes
from xaicli.queries.recorded import counted_on, going_on, start_again
from xaicli.report.charts import LineChart, Multiples, Series, Times, Tone
from xaicli.report.facts import fact_in_words, on_card
from xaicli.report.model import IN_CSV, Block, Card, Cell, Column, Gallery, Report, Section, Table, Text, rest_of
from xaicli.report.numbers import count, cut, listed, sample_name, short, shorts
from xaicli.report.page import Page, Part, as_list, label_names_of, made, report_of, run_line, words_of
from xaicli.report.samples import answer_in_words, saliency_link
from xaicli.words import percent

_POINTS = 2000
_SURE = 0.05
_SCALARS = 6
_STEPS_TOLD = 4
_GAP = ("mode", "ds_id", "epoch", "after", "before", "missing")
_GAPS_TOLD = 3
_FACTS = 3
_SEVERAL = ("mode", "ds_id", "epoch", "rank", "attempt")
"""What tells batches of one step apart."""


def steps_report(
    answer: Answer,
    page: Page | None = None,
    *,
    scalars: Mapping[tuple[str, str], pl.DataFrame] | None = None,
    moments: Mapping[tuple[str, str], pl.DataFrame] | None = None,
) -> Report:
    """The page of `xai steps`.

    Args:
        answer: A row a batch, with `spikes`, `first_non_finite` and `returning` beside.
        page: The run, with thumbnails of the samples in the batches told.
        scalars: What stands beside the batches of each mode and dataset: key, epoch, step, value.
        moments: The epoch and step of every batch that was logged, by mode and dataset; those of the answer when None.
    """
    page = page or Page()
    parts = []
    for (mode, ds_id), batches in answer.data.group_by("mode", "ds_id", maintain_order=True):
        words = words_of(mode, ds_id)
        logged = (moments or {}).get((str(mode), str(ds_id)), batches)
        # Few batches of a condition do not tell whether steps start again with the epochs.
        offsets = counted_on(logged.filter(pl.col("epoch").is_in(batches["epoch"].unique().implode())))
        beside = (scalars or {}).get((str(mode), str(ds_id)))
        parts.append(Part(words, _blocks(answer, (mode, ds_id), batches, words, page, offsets, beside)))
    return report_of(
        answer,
        page,
        parts,
        name="steps",
        title="What happened at which step",
        sentence=_sentence(answer),
        nothing="No batches: the selection leaves nothing.",
        rules=(
            ("batch", f"the rows of one step and rank; its {_metric(answer)} is the mean of the finite values"),
            ("spike", f"log {_metric(answer)} above the median of the 101 steps around by 6 x 1.4826 x MAD"),
            ("returning samples", "binomial, corrected after Benjamini and Hochberg; q at most 5 %"),
        ),
        tables={"steps": lambda: answer.data},
    )


def step_blocks(answer: Answer, page: Page) -> Iterator[Block]:
    """What a page about more says of the steps: a sentence, and the spikes of each data set."""
    yield Text(_sentence(answer))
    for (mode, ds_id), _ in answer.data.group_by("mode", "ds_id", maintain_order=True):
        if spikes := _here(answer.extra["spikes"], (mode, ds_id)):
            yield _spikes_table(spikes, _metric(answer), words_of(mode, ds_id), page)
    if any(answer.extra[key] for key in ("spikes", "first_non_finite", "non_finite_scalars")):
        yield Text("See batches, samples and scalars with xai steps.", Tone.FAINT)


def step_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai steps --step N`.

    Args:
        answer: A row a sample of the step, by share of its loss, with `batches` and `mix` beside.
        page: The run, with thumbnails of the samples.
    """
    page = page or Page()
    step, metric = answer.selection["step"], _metric(answer)
    several = [key for key in _SEVERAL if len({batch[key] for batch in answer.extra["batches"]}) > 1]
    told = [_batch_words(batch, _told_rows(batch, answer), metric, several) for batch in answer.extra["batches"]]
    told += _non_finite_beside(answer.extra["batches"])
    blocks: list[Block] = []
    for number, batch in enumerate(answer.extra["batches"]):
        rows = _told_rows(batch, answer)
        keys = ("mode", "ds_id", "epoch", "rank", "attempt")
        mix = [item for item in answer.extra["mix"] if all(item[key] == batch[key] for key in keys)]
        words = ", ".join((f"step {step}", *(f"{key} {batch[key]}" for key in several)))
        blocks += _gallery(batch, metric, words, page)
        blocks.append(replace(_samples_table(rows, metric, words, page, f"samples-{number}"), rest_in=IN_CSV))
        if mix:
            blocks.append(_mix_table(mix, words, f"mix-{number}"))
        blocks += _scalars_table(batch, words, page)
    return Report(
        name=f"step-{step}",
        title=f"Step {step}",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=" ".join(told),
        sections=(Section("The samples of the step", "samples", tuple(blocks)),),
        made=made(answer, ("share", f"of the sum of the step's finite {metric}")),
        warnings=answer.warnings,
        tables={f"step-{step}": lambda: answer.data.drop("history")},
    )


def pictured_samples(answer: Answer) -> Answer:
    """The samples whose pictures the page of an answer shows, as an answer of samples."""
    batches = [
        *answer.extra.get("spikes", ()),
        *answer.extra.get("first_non_finite", ()),
        *answer.extra.get("batches", ()),
    ]
    batches += [{**b["before"], "mode": b["mode"], "ds_id": b["ds_id"]} for b in batches if b.get("before")]
    rows = [(b["mode"], b["ds_id"], row["sample_id"]) for b in batches for row in b["samples"]]
    columns = ["mode", "ds_id", "sample_id"]
    frame = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
    return replace(answer, data=frame.unique(maintain_order=True))


def _told_rows(batch: Mapping[str, Any], answer: Answer) -> list[dict[str, Any]]:
    """The rows of a batch, with what more is told of the first."""
    told = {row["sample_id"]: row for row in batch["samples"]}
    return [{**told.get(row["sample_id"], {}), **row} for row in answer.data.filter(_of(batch)).to_dicts()]


def _of(batch: Mapping[str, Any]) -> pl.Expr:
    return pl.all_horizontal(pl.col(key) == batch[key] for key in ("mode", "ds_id", "epoch", "step", "rank", "attempt"))


def _metric(answer: Answer) -> str:
    """What is recorded of each sample, whose mean is that of the batch."""
    return "".join(map(str, as_list(answer.selection.get("metric"))))


def _sentence(answer: Answer) -> str:
    n, spikes = answer.data.height, int(answer.data["is_spike"].sum() or 0)
    metric = _metric(answer)
    told = f"{count(n, 'batch', 'batches')}, {count(spikes, 'spike') if spikes else 'no spike'} of {metric}"
    if answer.extra["gaps"]:
        longest = max(_joined_gaps(answer, answer.extra["gaps"]), key=lambda gap: gap["missing"])
        told += f"; the longest gap: {_gap_in_words(longest)}"
    said = [f"{told}."]
    several = [key for key in _SEVERAL if answer.data[key].n_unique() > 1]
    said += [_batch_words(spike, spike["samples"], metric, several) for spike in answer.extra["spikes"][:1]]
    said += [_non_finite_words(answer, first, metric, several) for first in answer.extra["first_non_finite"][:1]]
    said += _non_finite_scalars(answer)
    if back := answer.extra["returning"]:
        shown = listed([sample_name(row["sample_id"]) for row in back])
        said.append(f"More often in spikes than chance would bring: {shown}.")
    return " ".join(said)


def _which(batch: Mapping[str, Any], several: Sequence[str]) -> str:
    """The step of a batch, and what tells it apart from others of the step: "step 7 of epoch 2, rank 1,"."""
    words = {"mode": "", "ds_id": "dataset ", "rank": "rank ", "attempt": "attempt "}
    apart = [f"{words[key]}{batch[key]}" for key in several if key in words and batch[key] not in ("", None)]
    said = f"step {batch['step']:,} of epoch {batch['epoch']}"
    return f"{said}, {', '.join(apart)}," if apart else said


def _batch_words(
    batch: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], metric: str, several: Sequence[str]
) -> str:
    """What a batch was, and how much of it few samples hold."""
    which = _which(batch, several)
    said = which[0].upper() + which[1:]
    mean = mean_column(metric)
    if batch[mean] is None:
        return f"{said.removesuffix(',')}: no finite {metric} in {count(batch['n'], 'sample')}."
    # Of the first batches nothing says whether they jumped: the others may have fallen.
    start = batch["at_start"]
    verb = "had" if not batch["is_spike"] else "stands at" if start else "jumped to"
    loss, usual = shorts((batch[mean], batch["usual"]), 3)
    said += f" {verb} {loss} (usual {usual}{' after it' if start else ''})"
    odd, missing = batch["non_finite"], batch["missing"]
    if left := odd + missing:
        said += f" over {batch['n'] - left:,} of {count(batch['n'], 'sample')}, "
        others = "the other is" if left == 1 else "the others are"
        only = f"{others} not finite" if odd else f"{others} without {metric}"
        said += f"{odd:,} not finite and {missing:,} without {metric}" if odd and missing else only
    held = _held(batch, samples)
    return f"{said}: {held}." if held else f"{said}."


def _held(batch: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    """Who holds the loss of a batch, and where else they stood; "" where those that are told do not say."""
    known = [row for row in samples if row["share"] is not None][:FEW]
    held, few = 0.0, 0
    while few < len(known) and held < MOST_OF_IT:
        held, few = held + known[few]["share"], few + 1
    if held < MOST_OF_IT:
        if few < FEW:  # those that are not finite come first, and only so many are told
            return ""
        finite = batch["n"] - batch["non_finite"] - batch["missing"]
        return f"no few samples hold it, the highest {AS_WORDS[few]} of {finite:,} have {percent(held)}"
    said = f"{AS_WORDS[few]} {'sample holds' if few == 1 else 'samples hold'} {percent(held)} of it"
    others = in_other_spikes(known[:few])
    return f"{said}; {others}" if others else said


def _non_finite_words(answer: Answer, first: Mapping[str, Any], metric: str, several: Sequence[str]) -> str:
    """Where the loss broke, and what broke it: a sample of the batch, or the weights before it."""
    said = f"The first {metric} that is not finite came at {_which(first, several).removesuffix(',')}"
    before = first.get("before")
    if first[mean_column(metric)] is not None:
        odd = [sample_name(row["sample_id"]) for row in first["samples"] if not math.isfinite(row["value"] or 0.0)]
        left = first["non_finite"] - len(odd)
        named = f"{', '.join(odd)} and {left:,} more" if left > 0 else listed(odd)
        return f"{said}, in {first['non_finite']:,} of {count(first['n'], 'sample')}: {named}."
    said += f", in {'its one sample' if first['n'] == 1 else 'all ' + count(first['non_finite'], 'sample')}"
    if missing := first["missing"]:
        said += f" that have one ({missing:,} {'does' if missing == 1 else 'do'} not)"
    if not before:
        return f"{said}, and no batch stands before it."
    loss, usual = shorts((before[mean_column(metric)], before["usual"]), 3)
    said += (
        f": the weights were broken by then, so look at the batch before it, step {before['step']:,}, "
        f"with {loss} (usual {usual})"
    )
    held = _held(before, before["samples"])
    said += f": {held}" if held else ""
    early = _scalars_in_words(answer, _broken_before(answer, first))
    return f"{said}. Not finite before that or then: {listed(early, whole=True)}." if early else f"{said}."


def _broken_before(answer: Answer, first: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scalars of a mode and dataset that were not finite by the batch whose losses all are not."""
    place = first["mode"], first["ds_id"]
    return [row for row in _here(answer.extra["non_finite_scalars"], place) if _not_after(row, first)]


def _non_finite_scalars(answer: Answer) -> Iterator[str]:
    """Which scalars were not finite, each once, but for those told beside the first loss that is not."""
    first = next((first for first in answer.extra["first_non_finite"][:1] if first.get("before")), None)
    told = _scalars_in_words(answer, _broken_before(answer, first)) if first else []
    every = _scalars_in_words(answer, answer.extra["non_finite_scalars"])
    if left := [words for words in every if words not in told]:
        yield f"Not finite: {listed(left, whole=True)}."


def _scalars_in_words(answer: Answer, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where scalars were not finite, each once: "grad_norm at step 0 (4 times, the last at step 300)"."""
    again, said = start_again(answer.data), []
    for row in rows:
        words = f"{row['key']} {_moment(row['epoch'], row['step'], again)}"
        if row["n"] > 1:
            words += f" ({row['n']:,} times, the last {_moment(row['last_epoch'], row['last_step'], again)})"
        said.append(words)
    return list(dict.fromkeys(said))


def _moment(epoch: int | None, step: int | None, again: bool) -> str:
    """A moment of the training; its epoch too where steps start again with the epochs."""
    if step is None:
        return f"in epoch {epoch:,}"
    return f"at step {step:,} of epoch {epoch:,}" if again and epoch is not None else f"at step {step:,}"


def _non_finite_beside(batches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which scalars were not finite at batches, or when last logged before them."""
    said = dict.fromkeys(
        f"{row['key']} is {_odd(row['value'])} {_moment(row['epoch'], row['step'], len(batches) > 1)}"
        for batch in batches
        for row in batch["scalars"]
        if not math.isfinite(row["value"])
    )
    if said:
        yield f"Not finite beside it: {listed(list(said), whole=True)}."


def _odd(value: float) -> str:
    """A number that is not finite, in words."""
    return "NaN" if math.isnan(value) else "infinite" if value > 0 else "-infinite"


def _not_after(scalar: Mapping[str, Any], batch: Mapping[str, Any]) -> bool:
    """Whether a scalar was surely logged before a batch or at it; one of an epoch alone counts from the next on."""
    epoch, step = scalar["epoch"], scalar["step"]
    if scalar["counts_otherwise"]:
        return False
    if step is None:
        return bool(epoch < batch["epoch"])
    return bool((batch["epoch"] if epoch is None else epoch, step) <= (batch["epoch"], batch["step"]))


def _blocks(
    answer: Answer,
    place: tuple[Any, Any],
    batches: pl.DataFrame,
    words: str,
    page: Page,
    offsets: Mapping[int, int],
    scalars: pl.DataFrame | None = None,
) -> Iterator[Block]:
    metric = _metric(answer)
    yield _chart(batches, metric, words, page, offsets)
    if scalars is not None:
        yield from _scalar_charts(batches, scalars, words, page, offsets)
    if missing := _here(answer.extra["gaps"], place):
        yield Text(_gap_words(_joined_gaps(answer, missing)), Tone.FAINT)
    spikes = _here(answer.extra["spikes"], place)
    if spikes:
        yield _spikes_table(spikes, metric, words, page)
    else:
        yield Text("No batch stands out from those around it.", Tone.GOOD)
    for first in _here(answer.extra["first_non_finite"], place):
        yield from _batch_blocks(first, metric, f"first non-finite, {_heading(first)}", page, "non-finite")
        if before := first.get("before"):
            inside = {**before, "mode": first["mode"], "ds_id": first["ds_id"]}
            yield from _batch_blocks(inside, metric, f"the batch before it, {_heading(before)}", page, "before")
    for spike in spikes:
        yield from _batch_blocks(spike, metric, _heading(spike), page, "spike")
    if back := _here(answer.extra["returning"], place):
        yield _returning_table(back, words, page)


def _heading(batch: Mapping[str, Any]) -> str:
    return f"step {batch['step']} of epoch {batch['epoch']}"


def _batch_blocks(batch: Mapping[str, Any], metric: str, words: str, page: Page, name: str) -> Iterator[Block]:
    """The samples of one batch, what stands out in its mix, and the scalars logged there."""
    yield from _gallery(batch, metric, words, page)
    yield _samples_table(batch["samples"], metric, words, page, name)
    if news := [item for item in batch["mix"] if item["q"] <= _SURE]:
        yield _mix_table(news, words, page.names("mix", words, batch["step"], batch["rank"], batch["attempt"]))
    yield from _scalars_table(batch, words, page)


def _gap_words(missing: Sequence[Mapping[str, Any]]) -> str:
    """Which steps no batch was logged at."""
    told = [_gap_in_words(gap) for gap in missing[:_GAPS_TOLD]]
    left = len(missing) - len(told)
    told += [rest_of(count(left, "more gap"))] if left else []
    return f"No batch was logged {'; '.join(told)}."


def _joined_gaps(answer: Answer, missing: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gaps with the `ranks` that share each, in words: "" where one rank alone trained there."""
    ranks_of: dict[tuple[Any, ...], list[int]] = {}
    for gap in missing:
        ranks_of.setdefault(tuple(gap[key] for key in _GAP), []).append(gap["rank"])
    every: dict[tuple[Any, Any], set[int]] = {}
    for mode, ds_id, rank in answer.data.select("mode", "ds_id", "rank").unique().iter_rows():
        every.setdefault((mode, ds_id), set()).add(rank)
    for gap in answer.extra["gaps"]:
        every.setdefault((gap["mode"], gap["ds_id"]), set()).add(gap["rank"])
    found = []
    for key, own in ranks_of.items():
        n = len(every[key[0], key[1]])
        ranks = "" if n == 1 else f"rank{'' if len(own) == 1 else 's'} {listed(sorted(map(str, own)))}"
        if n > 1 and len(own) == n:
            ranks = "both ranks" if n == 2 else f"all {n:,} ranks"
        found.append({**dict(zip(_GAP, key, strict=True)), "ranks": ranks})
    return found


def _gap_in_words(gap: Mapping[str, Any]) -> str:
    many = count(gap["missing"], "batch", "batches")
    ranks = f" on {gap['ranks']}" if gap["ranks"] else ""
    return f"between steps {gap['after']:,} and {gap['before']:,} of epoch {gap['epoch']}{ranks} ({many})"


def _gallery(batch: Mapping[str, Any], metric: str, words: str, page: Page) -> list[Gallery]:
    """The samples of a batch that have pictures."""
    cards, times = [], Times.among(row.get("history") for row in batch["samples"])
    for row in batch["samples"]:
        key = (batch["mode"], batch["ds_id"], row["sample_id"])
        if (image := page.images.get(key)) is None:
            continue
        verdict, right = answer_in_words(row.get("label"), row.get("prediction"), page)
        held = f"{_share(row)} of {metric}" if row["share"] is not None else f"{metric} {_share(row)}"
        cards.append(
            Card(
                key=page.keys(*key),
                title=sample_name(row["sample_id"]),
                lines=(held, verdict) if right and verdict else (held,),
                tone=Tone.MAX,
                image=image,
                sparkline=() if times.are_one else times.course(row.get("history")),
                links=saliency_link(*key),
                verdict="" if right else verdict,
                facts=on_card(row, page.facts.path),
            )
        )
    return [Gallery(f"Most of {metric}: {words}", tuple(cards))] if cards else []


def _fact_words(row: Mapping[str, Any]) -> list[str]:
    return [f"{name} {cut(fact_in_words(value))}" for name, value in list((row.get("facts") or {}).items())[:_FACTS]]


def _scalar_charts(
    batches: pl.DataFrame,
    scalars: pl.DataFrame,
    words: str,
    page: Page,
    offsets: Mapping[int, int],
) -> Iterator[Multiples]:
    """What was logged beside the batches, each scalar in a chart of its own over the same steps."""
    first, last = batches.select(going_on(offsets).min().alias("first"), going_on(offsets).max().alias("last")).row(0)
    charts = []
    for (key,), rows in scalars.group_by("key", maintain_order=True):
        if not offsets and start_again(rows):
            rows = rows.filter(pl.col("epoch").is_in(batches["epoch"].unique().implode()))
        rows = rows.with_columns(going_on(offsets).alias("x")).filter(pl.col("x").is_between(first, last)).sort("x")
        if rows.is_empty():
            continue
        thin = rows.gather_every(-(-rows.height // _POINTS))
        known = tuple(value if math.isfinite(value) else None for value in thin["value"])
        line = Series(str(key), tuple(map(float, thin["x"])), known)
        charts.append(LineChart(page.names("scalar", words, str(key)), str(key), _over(offsets), str(key), (line,)))
    left = len(charts) - _SCALARS
    if charts:
        yield Multiples(
            page.names("scalars", words),
            f"Scalars beside it, {words}",
            tuple(charts[:_SCALARS]),
            legend=f"{left:,} more: xai scalars." if left > 0 else "",
            alt=f"{listed([chart.title for chart in charts])} over the steps, {words}.",
        )


def _scalars_table(batch: Mapping[str, Any], words: str, page: Page) -> list[Table]:
    rows = tuple(
        (row["key"], _when(row["epoch"]), _when(row["step"], "of the epoch"), row["value"], row["usual"])
        for row in batch["scalars"]
    )
    columns = (
        Column("scalar"),
        Column("epoch"),
        Column("at step"),
        Column("value", Cell.NUMBER),
        Column("usual", Cell.NUMBER),
    )
    name = page.names("scalars", words, batch["rank"])
    return [Table(name, f"Scalars: {words}", columns, rows, folded=True)] if rows else []


def _when(number: int | None, unknown: str = "–") -> str:
    return unknown if number is None else str(number)


def _here(rows: Sequence[Mapping[str, Any]], place: tuple[Any, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["mode"], row["ds_id"]) == place]


def _over(offsets: Mapping[int, int]) -> str:
    return "step, counted on over the epochs" if offsets else "step"


def _chart(batches: pl.DataFrame, metric: str, words: str, page: Page, offsets: Mapping[int, int]) -> LineChart:
    """Batch losses over the steps; of many the highest of each stretch, so that no spike is lost."""
    lines, mean = [], mean_column(metric)
    ranks = batches["rank"].unique().sort()
    for order, rank in enumerate(ranks):
        rows = batches.filter(pl.col("rank") == rank).with_columns(going_on(offsets).alias("step"))
        every = -(-rows.height // _POINTS)
        thin = (
            rows.with_columns((pl.int_range(pl.len()) // every).alias("stretch"))
            .group_by("stretch")
            .agg(pl.col("step").sort_by(mean, nulls_last=False).last(), pl.col(mean).max())
            .sort("stretch")
        )
        name = metric if len(ranks) == 1 else f"rank {rank}"
        lines.append(Series(name, tuple(map(float, thin["step"])), tuple(thin[mean]), colour=order))
        usual = rows.gather_every(every)
        tone = Tone.MEDIAN if len(ranks) == 1 else Tone.FAINT
        lines.append(Series("usual", tuple(map(float, usual["step"])), tuple(usual["usual"]), tone))
    finite = [value for line in lines for value in line.y if value is not None]
    most = batches.height > _POINTS
    return LineChart(
        name=page.names("steps", words),
        title=f"{metric} of each batch, {words}",
        x_label=_over(offsets),
        y_label=metric,
        series=tuple(lines),
        legend="Of each stretch of steps the highest batch." if most else "",
        alt=f"{metric} of {count(batches.height, 'batch', 'batches')} over the steps, {words}.",
        y_log=bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 100,
    )


def _spikes_table(spikes: Sequence[Mapping[str, Any]], metric: str, words: str, page: Page) -> Table:
    rows = tuple(
        (
            str(s["step"]),
            str(s["epoch"]),
            str(s["rank"]),
            s[mean_column(metric)],
            s["usual"],
            s["height"],
            s["n"],
            _top(s["samples"]),
        )
        for s in spikes
    )
    titles = (metric, "usual", "deviations")
    return Table(
        page.names("spikes", words),
        f"The highest spikes, {words}",
        (
            *(Column(title) for title in ("step", "epoch", "rank")),
            *(Column(title, Cell.NUMBER) for title in titles),
            Column("samples", Cell.INTEGER),
            Column("most of it"),
        ),
        rows,
        note="see all samples of a step with --step N",
    )


def _top(samples: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{sample_name(row['sample_id'])} {_share(row)}" for row in samples[:3])


def _share(row: Mapping[str, Any]) -> str:
    """How much of its batch's loss a sample holds, or why that is not told: its value, of losses below 0."""
    value = row["value"]
    if row["share"] is not None or value is None:
        return percent(row["share"], absent="missing")
    return short(value, 3) if math.isfinite(value) else "not finite"


def _samples_table(rows: Sequence[Mapping[str, Any]], metric: str, words: str, page: Page, name: str) -> Table:
    times = Times.among(row.get("history") for row in rows)
    wanted: list[tuple[Column, Callable[[Mapping[str, Any]], Any]]] = [
        (Column("sample"), lambda row: str(row["sample_id"])),
        (Column("label"), lambda row: page.label_name(row.get("label"))),
        (Column("prediction"), lambda row: page.prediction_name(row.get("prediction"))),
        (Column("value", Cell.NUMBER), lambda row: row["value"]),
        (Column("share", Cell.NUMBER), lambda row: percent(row["share"], absent="–")),
        (Column("also in the spikes at"), lambda row: _other_steps(row)),
        (Column("facts"), lambda row: ", ".join(_fact_words(row))),
        (Column("history", Cell.SPARKLINE), lambda row: times.course(row.get("history"))),
    ]
    optional = {"label": "label", "prediction": "prediction", "also in the spikes at": "also_in"}
    optional |= {"facts": "facts", "history": "history"}
    kept = [
        (column, cell)
        for column, cell in wanted
        if (column.title not in optional or any(row.get(optional[column.title]) not in (None, [], {}) for row in rows))
        and not (times.are_one and column.cell is Cell.SPARKLINE)
    ]
    columns, cells = tuple(column for column, _ in kept), [cell for _, cell in kept]
    table = tuple(tuple(cell(row) for cell in cells) for row in rows)
    return Table(page.names(name, words), f"By share of {metric}: {words}", columns, table)


def _other_steps(row: Mapping[str, Any]) -> str:
    return listed([said for _, said in other_spikes(row)], _STEPS_TOLD)


def _mix_table(mix: Sequence[Mapping[str, Any]], words: str, name: str) -> Table:
    columns = (
        *(Column("what"), Column("value"), Column("here", Cell.INTEGER)),
        *(Column("expected", Cell.NUMBER), Column("q", Cell.NUMBER)),
    )
    rows = tuple((m["column"], str(m["name"]), m["n"], m["expected"], m["q"]) for m in mix)
    return Table(name, f"Labels and facts against the mix of all rows: {words}", columns, rows)


def _returning_table(back: Sequence[Mapping[str, Any]], words: str, page: Page) -> Table:
    rows = tuple((str(row["sample_id"]), row["n_spikes"], row["n"], row["expected"], row["q"]) for row in back)
    return Table(
        page.names("returning", words),
        f"In spikes more often than chance would bring, {words}",
        (
            Column("sample"),
            Column("in spikes", Cell.INTEGER),
            Column("in batches", Cell.INTEGER),
            Column("expected", Cell.NUMBER),
            Column("q", Cell.NUMBER),
        ),
        rows,
    )
