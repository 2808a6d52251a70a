"""What is asked of a training step by step: `steps`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.chance import benjamini_hochberg
from xaicli.diagnosis.scalars import ScalarsBeside
from xaicli.diagnosis.slices import MISSING, spelled
from xaicli.diagnosis.steps import (
    AROUND,
    batch_losses,
    before_it,
    enrichment,
    first_non_finite,
    gaps,
    loss_shares,
    mean_column,
    mix,
    with_spikes,
    with_start,
)
from xaicli.errors import UsageError, XaiError, whole_number
from xaicli.queries.fifths import Fifths, are_many
from xaicli.queries.names import LabelNames
from xaicli.queries.recorded import start_again
from xaicli.queries.rows import within_labels
from xaicli.queries.samples import samples
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import (
    ATTEMPT,
    DS_ID,
    END_IS_KNOWN,
    EPOCH,
    HIGH_IS_GOOD,
    LABEL,
    MODE,
    PREDICTION,
    RANK,
    SAMPLE_ID,
    STEP,
    Duplicates,
)

_SHOWN = 5
_LISTED = 20
_SURE = 0.05
_AT_START = "at_start"
_BATCH = [EPOCH, STEP, RANK, ATTEMPT]
_WRITER = (RANK, ATTEMPT)


def steps(
    reader: Reader,
    selection: Selection,
    *,
    spikes: int = 5,
    around: int | None = None,
    histories: bool = True,
    from_start: bool = True,
) -> Answer:
    """The loss of every batch, and what stood in those that jumped.

    Args:
        reader: The run.
        selection: Which rows; the first of its metrics is the loss.
        spikes: How many spikes are told with their samples, the highest first.
        around: Only the steps within 50 of this one.
        histories: Whether the samples of spikes come with their histories, which takes a pass over all epochs.
        from_start: Whether spikes among the first 10 batches of a run are told, where the loss may only be falling.

    Returns:
        A row a batch: mode, ds_id, epoch, step, rank, attempt, the mean of the metric under its name (of the finite
        values, null without any; see `mean_column`), n, non_finite, missing, usual (the median about the step), height
        (robust deviations above it), is_spike. Further keys:

        - `spikes` and `first_non_finite` (at most one a (mode, ds_id)), each with `at_start` (whether what is usual
          there is of the batches behind it: of a run's first 10, or the first asked about), `samples` by share of the
          loss (their `also_in` are other spikes' steps), the `mix` of its labels and facts against the expected (p
          binomial, q corrected over the values of the batch), and the `scalars` logged there. Where no loss of the
          first non-finite batch is finite, `before` is the batch before it, told likewise: what broke the weights.
        - `returning`: the samples that stand in two spikes or more, more often than chance would have it (q <= 5 %).
        - `gaps`: steps within an epoch that no batch was logged at, the longest first.
        - `non_finite_scalars`: where each scalar was first and last NaN or infinite, and how often.

    Raises:
        UsageError: `spikes` is negative.
        XaiError: No batch was logged there, or of the metric high is good: its rise is no spike.
    """
    _refuse_high_is_good(selection)
    spikes = whole_number("--spikes", spikes, least=0)
    around = None if around is None else whole_number("--around", around, least=0)
    names = LabelNames.of(reader, selection)
    tally, metric = Tally(), selection.metrics[0]
    warnings = [*selection.warnings, *_without_known_end(selection)]
    parts: list[pl.DataFrame] = []
    extra: dict[str, list[dict[str, Any]]] = {
        "spikes": [],
        "first_non_finite": [],
        "returning": [],
        "gaps": [],
        "non_finite_scalars": [],
    }
    for pair in selection.pairs:
        origin = {MODE: pair[0], DS_ID: pair[1]}
        training = _Training(reader, selection, pair, names)
        batches = training.batches(tally)
        if batches.is_empty():
            warnings.append(none_meets(reader, pair))
        elif batches["loss"].count() == 0 and first_non_finite(batches) is None:
            warnings.append(f"no batch of {' '.join(filter(None, pair))} has a {metric}, by which a spike is told")
        near = batches
        if around is not None:
            near = batches.filter((pl.col(STEP) - around).abs() <= AROUND // 2)
            if near.is_empty() and not batches.is_empty():
                raise _no_step(reader, around, batches, within=AROUND // 2)
        logged, own_epochs = training.logged(batches), list(selection.epochs[pair])
        warnings += _without_steps(pair, logged.filter(pl.col(EPOCH).is_in(own_epochs)))
        parts.append(near.select(*(pl.lit(value).alias(name) for name, value in origin.items()), pl.exclude(_AT_START)))
        chosen = near.filter("is_spike")
        if not from_start:
            chosen = chosen.filter(~(pl.col(_AT_START) & (pl.col(EPOCH) == min(reader.epochs(*pair), default=0))))
        chosen = chosen.sort("height", STEP, descending=[True, False]).head(spikes)
        told = [("spikes", row) for row in chosen.iter_rows(named=True)]
        if (first := first_non_finite(near)) is not None:
            first["before"] = before_it(batches, first) if first["loss"] is None else None
            told.append(("first_non_finite", first))
        wanted = [row for _, row in told] + [row["before"] for _, row in told if row.get("before")]
        contents = _Contents.of(training, batches, wanted, logged)
        for key, row in told:
            if row.get("before"):
                row["before"] |= contents.described(row["before"], _SHOWN, _SHOWN)
            row |= contents.described(row, _SHOWN, _SHOWN)
            extra[key].append({**origin, **row})
        if histories:
            _add_histories(reader, selection, pair, [row for _, row in told])
        warnings += contents.scalars.warnings(_apart(reader, pair))
        extra["returning"] += [{**origin, **row} for row in contents.returning().iter_rows(named=True)]
        left_out = set(reader.epochs(*pair)) - set(own_epochs)
        missing = gaps(logged).filter(pl.col(EPOCH).is_in(own_epochs))
        if around is not None:  # what lies between the two steps, and be it in part, is within 50 of it
            missing = missing.filter(pl.col("after") < around + AROUND // 2, pl.col("before") > around - AROUND // 2)
        missing = missing.sort("missing", EPOCH, "after", descending=[True, False, False])
        extra["gaps"] += [{**origin, **row} for row in missing.iter_rows(named=True)]
        extra["non_finite_scalars"] += [{**origin, **row} for row in contents.scalars.non_finite(around, left_out)]
    if not sum(part.height for part in parts):
        raise _nothing(reader, selection)
    return Answer(
        command="steps",
        run=reader.layout.described,
        selection={**selection.as_dict(), "spikes": spikes, "around": around},
        data=pl.concat(parts).rename({"loss": mean_column(metric)}),
        counts=reader.counts(tally),
        warnings=tuple(dict.fromkeys(warnings)),
        extra={**extra, **{key: _called(extra[key], metric) for key in ("spikes", "first_non_finite")}},
    )


def samples_of_step(reader: Reader, selection: Selection, step: int) -> Answer:
    """The samples of one step by their share of its loss, with their histories.

    Args:
        reader: The run.
        selection: Which rows; the first of its metrics is the loss.
        step: The step.

    Returns:
        Rows mode, ds_id, epoch, step, rank, attempt, sample_id, label, prediction (as logged there), value, share, the
        facts of the sample, history. The key `mix` holds the step's labels and facts against the expected, `batches`
        what `steps` says of it.

    Raises:
        XaiError: There is no such step, or of the metric high is good.
    """
    _refuse_high_is_good(selection)
    step = whole_number("--step", step)
    names = LabelNames.of(reader, selection)
    tally = Tally()
    parts, extra = [], {"batches": [], "mix": []}  # type: ignore[var-annotated]
    known: list[pl.DataFrame] = []
    warnings: list[str] = []
    for pair in selection.pairs:
        training = _Training(reader, selection, pair, names)
        batches = training.batches(tally)
        known.append(batches)
        here = list(batches.filter(pl.col(STEP) == step).iter_rows(named=True))
        if not here:
            continue
        contents = _Contents.of(training, batches, here, training.logged(batches))
        warnings += contents.scalars.warnings(_apart(reader, pair))
        for row in here:
            place = {MODE: pair[0], DS_ID: pair[1]}
            found = contents.mix(row)
            extra["batches"].append({**place, **row, **contents.described(row, _LISTED, len(found))})
            extra["mix"] += [{**place, **{key: row[key] for key in (EPOCH, *_WRITER)}, **item} for item in found]
            parts.append(_with_histories(reader, selection, pair, row, contents.of_batch(row)))
    if not parts:
        every = pl.concat(known)
        raise _nothing(reader, selection) if every.is_empty() else _no_step(reader, step, every)
    return Answer(
        command="steps",
        run=reader.layout.described,
        selection={**selection.as_dict(), "step": step},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=reader.counts(tally),
        warnings=(*selection.warnings, *_without_known_end(selection), *dict.fromkeys(warnings)),
        extra={**extra, "batches": _called(extra["batches"], selection.metrics[0])},
    )


def _called(batches: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Batches with their mean under the name of the metric."""
    found = []
    for batch in batches:
        told = {mean_column(metric) if key == "loss" else key: value for key, value in batch.items()}
        if told.get("before"):
            told["before"] = _called([told["before"]], metric)[0]
        found.append(told)
    return found


def _refuse_high_is_good(selection: Selection) -> None:
    """Refuse a metric that has no spikes, and of which no sample holds a share: what is worse in it is less of it."""
    metric = selection.metrics[0]
    if metric in HIGH_IS_GOOD:
        raise UsageError(
            f"xai steps takes a loss: a rise of {metric} is no spike, since high is good there",
            hint="--metric loss, or another of which low is good; log it with run.log_samples(..., loss=...)",
            refused=("metric",),
        )


def _without_known_end(selection: Selection) -> list[str]:
    """That nothing says whether a rise of the metric is a bad one."""
    metric = selection.metrics[0]
    if metric in END_IS_KNOWN:
        return []
    return [f"which end of {metric} is good is not known: its rises are told as spikes"]


def _without_steps(pair: Pair, batches: pl.DataFrame) -> list[str]:
    """That the rows of whole epochs share a step, so that nothing tells their batches apart."""
    one_each = batches.group_by(EPOCH, *_WRITER).agg(pl.col(STEP).n_unique(), pl.col("n").sum())
    if one_each.is_empty() or not (one_each[STEP] == 1).all() or batches["n"].max() == 1:
        return []
    where = " ".join(part for part in pair if part)
    return [f"all rows of {where} of an epoch were logged at one step: each epoch is told as one batch"]


def _apart(reader: Reader, pair: Pair) -> str:
    """A mode and dataset in words where the run has others; "" where it is the only one."""
    every = [(mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode)]
    return " ".join(part for part in pair if part) if len(every) > 1 else ""


def none_meets(reader: Reader, pair: Pair) -> str:
    """That a condition leaves nothing of a (mode, ds_id)."""
    where = f" meets --where {reader.where.text!r}" if reader.where else " is among those selected"
    return f"no row of {' '.join(part for part in pair if part)}{where}"


def _nothing(reader: Reader, selection: Selection) -> XaiError:
    columns = ", ".join(list(reader.dtypes)[:12])
    return XaiError(none_meets(reader, selection.pairs[0]), hint=f"columns that a condition can name: {columns}")


def _no_step(reader: Reader, step: int, batches: pl.DataFrame, within: int = 0) -> XaiError:
    known = sorted(batches[STEP].unique().to_list())
    near = min(known, key=lambda other: abs(other - step))
    of_others = (_logged(reader, (m, d), reader.epochs(m, d))[STEP] for m in reader.modes() for d in reader.ds_ids(m))
    # One of another epoch, mode or data set is a step of the run, which this question leaves out.
    is_left_out = any(((steps - step).abs() <= within).any() for steps in of_others)
    return XaiError(
        f"no batch was logged {f'around step {step}, at most {within} from it' if within else f'at step {step}'}",
        hint=f"steps {known[0]} to {known[-1]} were; the nearest is {near}",
        refused=("epoch", "epoch_frequency") if is_left_out else (),
        by=("step", "around") if is_left_out else (),
    )


@dataclass(frozen=True)
class _Training:
    """The rows of one (mode, ds_id) in the order of their batches."""

    reader: Reader
    selection: Selection
    pair: Pair
    names: LabelNames

    @property
    def metric(self) -> str:
        return self.selection.metrics[0]

    @cached_property
    def predicted(self) -> LabelNames:
        """The names of the model's answers."""
        return LabelNames.of_predictions(self.reader, self.selection)

    def batches(self, tally: Tally) -> pl.DataFrame:
        """Every batch with what is usual about it."""
        parts = [
            batch_losses(rows.frame.with_columns(pl.lit(rows.place.epoch, pl.Int32).alias(EPOCH)), self.metric)
            for rows in self.frames([STEP, *_WRITER, self.metric], tally=tally)
        ]
        if not parts:  # a condition that no row meets
            kinds = {STEP: pl.Int64(), EPOCH: pl.Int32(), self.metric: pl.Float32()}
            kinds |= dict.fromkeys(_WRITER, pl.Int16())
            parts = [batch_losses(pl.DataFrame(schema=kinds), self.metric)]
        marked = with_spikes(pl.concat(parts).group_by(_BATCH).agg(_merged()).sort(_BATCH))
        return with_start(marked, min(self.reader.epochs(*self.pair), default=0))

    def frames(
        self, columns: Sequence[str], epochs: Sequence[int] | None = None, tally: Tally | None = None
    ) -> Iterator[Rows]:
        """The rows of each place as they were logged, NaN and infinities included; the label key's column as label."""
        selection, key = self.selection, self.selection.label_key
        limit = [key] if selection.label_map else []
        wanted = [name for name in dict.fromkeys([*columns, *limit]) if name in self.reader.dtypes or name in _WRITER]
        for rows in self.reader.place_frames(
            *self.pair,
            wanted,
            list(selection.epochs[self.pair]) if epochs is None else epochs,
            duplicates=selection.duplicates,
            tally=tally,
            keep_non_finite=True,
        ):
            frame = within_labels(rows.frame, selection)
            if key not in (LABEL, SAMPLE_ID) and key in frame.columns:
                frame = frame.drop(LABEL, strict=False)
                # What groups may be asked for as itself, too: the metric, say.
                frame = frame.with_columns(pl.col(key).alias(LABEL)) if key in columns else frame.rename({key: LABEL})
            yield rows._replace(frame=frame)

    def logged(self, batches: pl.DataFrame) -> pl.DataFrame:
        """Every batch of the run, whatever the question leaves out of them or of its epochs: those of `_logged`.

        Args:
            batches: Those that the question is about.
        """
        asked, every = self.selection.epochs[self.pair], self.reader.epochs(*self.pair)
        whole = self.reader.where is None and not self.selection.label_map
        if not whole or self.selection.duplicates is not Duplicates.ALL:
            return _logged(self.reader, self.pair, every)
        others = _logged(self.reader, self.pair, [epoch for epoch in every if epoch not in set(asked)])
        return pl.concat([batches.select(others.columns), others]).sort(_BATCH)

    @cached_property
    def seen(self) -> pl.DataFrame:
        """How often each sample was in a batch: sample_id, n."""
        return self._everyone[0]

    @cached_property
    def labels(self) -> pl.DataFrame | None:
        """How often each label was in a batch, alone or in a set: label, n; None where labels are no groups."""
        return self._everyone[1]

    @cached_property
    def parts(self) -> pl.DataFrame | None:
        """What the part of each label that is a number is called, a fifth of all rows: label, name; else None."""
        counts = self.labels
        if counts is None or not counts.schema[LABEL].is_float():
            return None
        label = counts[LABEL].cast(pl.Float64)
        if not are_many(label):
            return pl.DataFrame([label, spelled(label).alias("name")])
        names, codes = Fifths.of(label.repeat_by(counts["n"]).explode()).parted(label)
        called = np.array([*names, MISSING], dtype=object)[codes]
        return pl.DataFrame([label, pl.Series("name", called, pl.String)])

    @cached_property
    def _everyone(self) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        key, n = self.selection.label_key, pl.len().cast(pl.Int64).alias("n")
        seen, labels = [], []
        for rows in self.frames([SAMPLE_ID, key]):
            seen.append(rows.frame.group_by(SAMPLE_ID).agg(n))
            if _are_groups(rows.frame):
                labels.append(_each(rows.frame).group_by(LABEL).agg(n))
        of_labels = pl.concat(labels, how="vertical_relaxed").group_by(LABEL).agg(pl.col("n").sum()) if labels else None
        counted = pl.concat(seen).group_by(SAMPLE_ID).agg(pl.col("n").sum())
        return counted, of_labels.sort(LABEL) if of_labels is not None else None

    @cached_property
    def facts(self) -> pl.DataFrame:
        """What the samples are, a row each."""
        return self.reader.facts.frame

    @cached_property
    def groups(self) -> pl.DataFrame:
        """Their facts as the names of groups, a row a sample that was in a batch, in the order of `seen`."""
        names = [name for name in self.facts.columns if name != SAMPLE_ID]
        joined = self.seen.select(SAMPLE_ID).join(self.facts, on=SAMPLE_ID, how="left", maintain_order="left")
        return joined.select(SAMPLE_ID, *(spelled(joined[name]) for name in names))


def logged_moments(reader: Reader, pair: Pair) -> pl.DataFrame:
    """The epochs and steps of all batches of a run, whatever a question leaves out of them: epoch, step."""
    return _logged(reader, pair, reader.epochs(*pair)).select(EPOCH, STEP).unique()


def _logged(own: Reader, pair: Pair, epochs: Sequence[int]) -> pl.DataFrame:
    """Every batch that was logged in some epochs: epoch, step, rank, attempt, n."""
    reader = own if own.where is None else own.limited(None)
    frames = reader.place_frames(*pair, [STEP, *_WRITER], list(epochs), duplicates=Duplicates.ALL)
    n = pl.len().cast(pl.Int64).alias("n")
    parts = [
        rows.frame.group_by(STEP, *_WRITER).agg(n).with_columns(pl.lit(rows.place.epoch, pl.Int32).alias(EPOCH))
        for rows in frames
    ]
    if not parts:
        kinds = {EPOCH: pl.Int32(), STEP: pl.Int64(), RANK: pl.Int16(), ATTEMPT: pl.Int16(), "n": pl.Int64()}
        return pl.DataFrame(schema=kinds)
    return pl.concat(parts).group_by(_BATCH).agg(pl.col("n").sum()).sort(_BATCH)


def _are_groups(frame: pl.DataFrame) -> bool:
    if LABEL not in frame.columns:
        return False
    dtype = frame.schema[LABEL]
    if not isinstance(dtype, pl.List):
        return not dtype.is_nested()
    return isinstance(dtype.inner, pl.DataType) and not dtype.inner.is_nested() and not dtype.inner.is_float()


def _each(frame: pl.DataFrame) -> pl.DataFrame:
    """The labels of rows: of sets a row each of their classes."""
    if not isinstance(frame.schema[LABEL], pl.List):
        return frame.select(LABEL)
    return frame.select(pl.col(LABEL).list.unique().explode()).drop_nulls()


def _in_parts(rows: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """Rows with what the part of their label is called, as `name`."""
    wide = rows.with_columns(pl.col(LABEL).cast(pl.Float64))
    return wide.join(parts, on=LABEL, how="left", maintain_order="left").with_columns(pl.col("name").fill_null(MISSING))


def _merged() -> list[pl.Expr]:
    """The batches of several passes that share a step, as one."""
    finite = pl.col("n") - pl.col("non_finite") - pl.col("missing")
    mean = (pl.col("loss") * finite).sum() / pl.when(pl.col("loss").is_not_null()).then(finite).sum()
    return [pl.when(finite.sum() > 0).then(mean).alias("loss"), pl.col("n", "non_finite", "missing").sum()]


@dataclass(frozen=True)
class _Contents:
    """The rows of some batches, read once.

    Attributes:
        training: Where they are from.
        rows: Their rows: sample_id, epoch, step, rank, attempt, label and prediction where they are told, and the loss
            as value, for a metric may be called like any column of ours.
        spiked: Which of the batches are spikes: epoch, step, rank.
        jumped: Those of them that do not merely stand at a training's start.
        scalars: What was logged beside the batches.
        again: Whether the steps of the batches start again with the epochs.
    """

    training: _Training
    rows: pl.DataFrame
    spiked: pl.DataFrame
    jumped: pl.DataFrame
    scalars: ScalarsBeside
    again: bool
    _mixes: dict[tuple[Any, ...], list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, training: _Training, batches: pl.DataFrame, told: Sequence[Mapping[str, Any]], logged: pl.DataFrame
    ) -> _Contents:
        """Those of all batches that spike, and those that are told.

        Args:
            training: Where they are from.
            batches: All that the question is about.
            told: Those that are told, as rows of `batches`.
            logged: Every batch that was logged.
        """
        spikes = batches.filter("is_spike").select(_BATCH)
        others = pl.DataFrame([{key: row[key] for key in _BATCH} for row in told], schema=spikes.schema)
        wanted = pl.concat([spikes, others]).unique()
        columns = [SAMPLE_ID, STEP, *_WRITER, training.selection.label_key, PREDICTION, training.metric]
        parts = []
        epochs = wanted[EPOCH].unique().sort().to_list()
        for found in training.frames(columns, epochs) if epochs else ():
            known = [name for name in (SAMPLE_ID, STEP, *_WRITER, LABEL, PREDICTION) if name in found.frame.columns]
            epoch = pl.lit(found.place.epoch, pl.Int32).alias(EPOCH)
            frame = found.frame.select(*known, epoch, pl.col(training.metric).alias("value"))
            parts.append(frame.join(wanted, on=_BATCH, how="semi", maintain_order="left"))
        rows = pl.concat(parts) if parts else pl.DataFrame()
        moments = logged.select(EPOCH, STEP).unique(maintain_order=True)
        scalars = ScalarsBeside.of(training.reader, training.pair, moments)
        jumped = batches.filter(pl.col("is_spike") & ~pl.col(_AT_START)).select(_BATCH)
        return cls(training, rows, spikes, jumped, scalars, start_again(moments))

    def of_batch(self, batch: Mapping[str, Any]) -> pl.DataFrame:
        """The rows of a batch by their share of its loss."""
        is_it = pl.all_horizontal(pl.col(key) == batch[key] for key in _BATCH)
        return loss_shares(self.rows.filter(is_it))

    def described(self, batch: Mapping[str, Any], top: int, values: int) -> dict[str, Any]:
        """What a batch held: the first of its samples and of the values of its mix, and the scalars beside it."""
        rows, names, predicted = self.of_batch(batch), self.training.names, self.training.predicted
        facts = self._facts_of(rows[SAMPLE_ID].head(top))
        elsewhere = self._spikes_of(rows[SAMPLE_ID].head(top), batch)
        found = []
        for row in rows.head(top).iter_rows(named=True):
            item = {SAMPLE_ID: row[SAMPLE_ID], "value": row["value"], "share": row["share"]}
            if LABEL in row:
                item |= {LABEL: row[LABEL]}
                item |= {} if rows.schema[LABEL].is_float() else {"name": names.beside(row[LABEL])}
            if PREDICTION in row:
                item |= {PREDICTION: row[PREDICTION]}
                is_number = rows.schema[PREDICTION].is_float()
                item |= {} if is_number else {"prediction_name": predicted.beside(row[PREDICTION])}
            others = elsewhere[row[SAMPLE_ID]]
            item |= {"facts": facts.get(row[SAMPLE_ID], {}), "also_in": [step for _, step in others]}
            found.append(item | ({"also_in_epochs": [epoch for epoch, _ in others]} if self.again else {}))
        odd = sorted(self.mix(batch), key=lambda item: (item["p"], item["expected"] - item["n"]))
        return {"samples": found, "mix": odd[:values], "scalars": self.scalars.at(batch)}

    def _facts_of(self, ids: pl.Series) -> dict[Any, dict[str, Any]]:
        known = self.training.facts
        if known.width < 2:
            return {}
        rows = known.filter(pl.col(SAMPLE_ID).is_in(ids.implode())).to_dicts()
        return {row.pop(SAMPLE_ID): {name: value for name, value in row.items() if value is not None} for row in rows}

    def _spikes_of(self, ids: pl.Series, batch: Mapping[str, Any]) -> dict[Any, list[tuple[int, int]]]:
        """The epochs and steps of the other spikes that samples stood in, but for those of a training's start."""
        here = pl.all_horizontal(pl.col(key) == batch[key] for key in _BATCH)
        among = self.rows.filter(pl.col(SAMPLE_ID).is_in(ids.implode()) & ~here)
        found: dict[Any, list[tuple[int, int]]] = {sample: [] for sample in ids}
        stood = among.join(self.jumped, on=_BATCH, how="semi").select(SAMPLE_ID, EPOCH, STEP).unique()
        for sample, epoch, step in stood.sort(EPOCH, STEP).iter_rows():
            found[sample].append((epoch, step))
        return found

    def mix(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The labels and facts of a batch against those of all rows, the labels first."""
        key = tuple(batch[name] for name in _BATCH)
        if key not in self._mixes:
            self._mixes[key] = self._mix(batch)
        return self._mixes[key]

    def _mix(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows, names, training = self.of_batch(batch), self.training.names, self.training
        found: list[dict[str, Any]] = []
        if _are_groups(rows) and training.labels is not None:
            total = int(training.seen["n"].sum()) if isinstance(rows.schema[LABEL], pl.List) else None
            if (parts := training.parts) is not None:
                here, everywhere = (_in_parts(each, parts) for each in (rows, training.labels))
                counted = everywhere.group_by("name").agg(pl.col("n").sum())
                for item in mix(here["name"], counted):
                    found.append({"column": LABEL, LABEL: None, "name": item.value, **_odds(item)})
            for item in mix(rows[LABEL], training.labels, total) if parts is None else ():
                name = MISSING if item.value is None else names[item.value]
                found.append({"column": LABEL, LABEL: item.value, "name": name, **_odds(item)})
        groups = training.groups if training.facts.width > 1 else pl.DataFrame()
        here = rows.select(SAMPLE_ID).join(groups, on=SAMPLE_ID, how="left") if groups.width else groups
        own = training.selection.label_key if found else SAMPLE_ID  # a fact that stands for the label is told as that
        for column in (name for name in groups.columns if name not in (SAMPLE_ID, own)):
            value, n = groups[column].alias("value"), training.seen["n"]
            everywhere = pl.DataFrame([value, n]).group_by("value").agg(pl.col("n").sum())
            for item in mix(here[column], everywhere):
                found.append({"column": column, LABEL: None, "name": item.value, **_odds(item)})
        q = benjamini_hochberg(np.array([item["p"] for item in found])) if found else ()
        return [{**item, "q": float(level)} for item, level in zip(found, q, strict=True)]

    def returning(self) -> pl.DataFrame:
        """The samples that stand in spikes surprisingly often."""
        if self.spiked.is_empty():
            return pl.DataFrame()
        stood = self.rows.join(self.spiked, on=_BATCH, how="semi").group_by(SAMPLE_ID)
        hits = stood.agg(pl.len().cast(pl.Int64).alias("n_spikes"), pl.struct(_BATCH).n_unique().alias("spikes"))
        came_back = hits.filter(pl.col("spikes") > 1)[SAMPLE_ID].implode()
        found = enrichment(self.training.seen, hits.drop("spikes"))
        return found.filter((pl.col("q") <= _SURE) & pl.col(SAMPLE_ID).is_in(came_back))


def _odds(item: Any) -> dict[str, Any]:
    return {"n": item.n, "expected": item.expected, "p": item.p}


def _add_histories(reader: Reader, selection: Selection, pair: Pair, batches: Sequence[dict[str, Any]]) -> None:
    """Give the samples of some batches their histories, in one pass."""
    told = [one for batch in batches for one in (batch, batch.get("before")) if one]
    listed = [row for one in told for row in one["samples"]]
    if not listed:
        return
    asked = replace(selection, pairs=(pair,), metrics=selection.metrics[:1])
    ids = list(dict.fromkeys(row[SAMPLE_ID] for row in listed))
    found = samples(reader, asked, max=0, min=0, ids=ids).data
    histories = dict(zip(found[SAMPLE_ID], found["history"].to_list(), strict=True))
    for row in listed:
        row["history"] = histories.get(row[SAMPLE_ID], [])


def _with_histories(
    reader: Reader, selection: Selection, pair: Pair, batch: Mapping[str, Any], rows: pl.DataFrame
) -> pl.DataFrame:
    """The samples of a batch, the first with their histories."""
    metric = selection.metrics[0]
    asked = replace(selection, pairs=(pair,), metrics=(metric,))
    ids = rows[SAMPLE_ID].unique(maintain_order=True).head(_LISTED).to_list()
    told = samples(reader, asked, max=0, min=0, ids=ids).data.select(SAMPLE_ID, "history")
    place = [pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), pl.lit(batch[EPOCH], pl.Int32).alias(EPOCH)]
    own = [name for name in (LABEL, PREDICTION) if name in rows.columns]
    value = pl.col("value").cast(pl.Float64)
    found = rows.select(*place, STEP, *_WRITER, SAMPLE_ID, *own, value, "share")
    return found.join(told, on=SAMPLE_ID, how="left", maintain_order="left")
