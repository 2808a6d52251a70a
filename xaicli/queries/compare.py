"""Several runs side by side: the same metric, labels and samples, at the end and over time; which samples flipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError, XaiError, whole_number
from xaicli.queries.labels import labels
from xaicli.queries.listed import Ids, listed
from xaicli.queries.names import facts_beside, label_text, named, named_each, names_of_runs
from xaicli.queries.resolution import left_out, resolve
from xaicli.queries.rows import walk
from xaicli.queries.scores import SCORE, STALE, Epochwise, extremes
from xaicli.queries.selection import Pair, Selection, left_out_by, polars_only
from xaicli.queries.truth import right_by
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import CORRECT, DS_ID, EPOCH, LABEL, MODE, PASS, SAMPLE_ID, Group

FLIPPED = "flipped"

_SCHEMA = {
    "kind": pl.String(),
    MODE: pl.String(),
    DS_ID: pl.String(),
    "metric": pl.String(),
    LABEL: pl.Null(),  # of the runs' kind
    "name": pl.String(),
    SAMPLE_ID: pl.Null(),  # of the runs' kind
    "group": pl.String(),
    "rank": pl.Int64(),
    "values": pl.List(pl.Float64),
    "n": pl.List(pl.Int64),
    EPOCH: pl.List(pl.Int64),
    PASS: pl.List(pl.Int64),
    "change": pl.Float64(),
    "correct": pl.List(pl.Boolean),
    STALE: pl.List(pl.Boolean),
}


@dataclass(frozen=True)
class Shared:
    """What several runs have in common.

    Attributes:
        selections: Each run's own selection.
        pairs: The (mode, ds_id) that all hold.
        metrics: The metrics that all hold.
        left_out: What is to be said of those that some of them lack.
    """

    selections: tuple[Selection, ...]
    pairs: tuple[Pair, ...]
    metrics: tuple[str, ...]
    left_out: tuple[str, ...]


def shared(readers: Sequence[Reader], **select: Any) -> Shared:
    """Resolve what is asked of several runs.

    Args:
        readers: The runs, in order; the first one's defaults decide.
        select: What `resolve` takes.

    Raises:
        UsageError: Fewer than two runs.
        XaiError: They share no (mode, ds_id), or one lacks what is asked for.
    """
    if len(readers) < 2:
        raise UsageError("compare needs two runs or more", hint="xai compare runs/a runs/b")
    selections = tuple(resolve(reader, **select) for reader in readers)
    pairs = tuple(pair for pair in selections[0].pairs if all(pair in other.pairs for other in selections))
    if not pairs:
        shown = "; ".join(
            f"{r.layout.described}: {', '.join(' '.join(filter(None, pair)) for pair in s.pairs)}"
            for r, s in zip(readers, selections, strict=True)
        )
        raise XaiError("the runs share no mode and ds_id", hint=shown)
    held = [{*reader.metrics, *({CORRECT} & set(reader.dtypes))} for reader in readers]
    metrics = tuple(metric for metric in selections[0].metrics if all(metric in known for known in held))
    return Shared(selections, pairs, metrics, tuple(_left_out(readers, selections, pairs, held)))


def _left_out(
    readers: Sequence[Reader], selections: Sequence[Selection], pairs: Sequence[Pair], held: Sequence[set[str]]
) -> Iterator[str]:
    """What is said of each (mode, ds_id) and metric that is asked for and that some of the runs lack."""
    for pair in dict.fromkeys(pair for selection in selections for pair in selection.pairs if pair not in pairs):
        lacking = [(r, s) for r, s in zip(readers, selections, strict=True) if pair not in s.pairs]
        place = " ".join(filter(None, pair))
        # A run that never had it has not lost it to an option.
        if without := [r.layout.described for r, s in lacking if pair not in s.emptied]:
            yield f"{place} is not in {', '.join(without)}, and not compared"
        others = [(r.layout.described, s.emptied[pair]) for r, s in lacking if pair in s.emptied]
        for why in dict.fromkeys(why for _, why in others):
            roots = ", ".join(root for root, of_it in others if of_it == why)
            yield f"{place} is left out of {roots}, and not compared: {why}"
    for metric in dict.fromkeys(metric for selection in selections for metric in selection.metrics):
        if lacking_it := [r.layout.described for r, known in zip(readers, held, strict=True) if metric not in known]:
            yield f"{metric} is not in {', '.join(lacking_it)}, and not compared"


def compare(
    readers: Sequence[Reader],
    *,
    max: int = 5,
    min: int = 5,
    ids: Ids = None,
    **select: Any,
) -> Answer:
    """Two or more runs side by side, each at the last of its selected epochs.

    Args:
        readers: The runs, in order; changes are the last's value minus the first's.
        max: How many samples whose score grew most.
        min: How many samples whose score fell most.
        ids: Samples to list.
        select: What `resolve` takes.

    Returns:
        Rows by `kind`: `metric` (the mean over the samples), `label` (the mean of each label), `sample`; with mode,
        ds_id, metric, label (as the last run has it) and its name, sample_id, group (max: grew most, min: fell most,
        listed, flipped: right in one of first and last run and wrong in the other), rank, values, correct and stale
        (one a run, null where a run has none), change. A mean is over the last place of a run's own with selected rows,
        as of an epoch of several passes the last: its epoch, pass and n, how many finite values it is of, are beside
        it, one a run. A sample absent from the last epoch competes with its last value, which is marked stale.

    Raises:
        UsageError: Fewer than two runs, or a negative count.
        XaiError: The runs share no (mode, ds_id), or one lacks what is asked for.
    """
    max, min = (whole_number(f"--{name}", n, least=0) for name, n in (("max", max), ("min", min)))
    found = shared(readers, **select)
    for selection in found.selections:
        polars_only(selection, "compare")
    given = listed(readers[0], ids)
    said = given.not_in(found.pairs)
    rows: list[dict[str, Any]] = []
    tally, others, n_stale = Tally(), list[str](), 0
    known: dict[Pair, set[Any]] = {}
    names, right = names_of_runs(readers, found.selections), right_by(readers, found.selections[0].label_key)
    for pair in found.pairs:
        ones = [replace(selection, pairs=(pair,), metrics=found.metrics) for selection in found.selections]
        sources = [_source(*one, pair) for one in zip(readers, ones, right, strict=True)]
        for metric in found.metrics:
            alone = [replace(one, metrics=(metric,)) for one in ones]
            of_metric = _metric_and_labels(readers, alone, pair, metric, names)
            table = _at_ends(readers, alone, pair, metric, sources, names, right)
            others += _valueless(of_metric[0], table, readers)
            rows += of_metric
            wanted = given.of(pair)
            known.setdefault(pair, set()).update(table.filter(pl.col(SAMPLE_ID).is_in(wanted))[SAMPLE_ID])
            rows += _samples(table, len(readers), pair, metric, max, min, wanted)
            n_stale += table.filter(pl.any_horizontal(f"{STALE}{n}" for n in range(len(readers)))).height
            if found.selections[0].label_key == LABEL:
                others += _other_labels(table, readers, pair, names)
            if metric == found.metrics[0]:
                others += _alone(table, readers, pair)
        for source in sources:
            source.count(tally)
    given.refuse_absent(known)
    every = set[Any]().union(*known.values())
    if missing := [item for item in given.within(found.pairs) if item not in every]:
        where = ", ".join(reader.described for reader in readers)
        for reader, selection in zip(readers, found.selections, strict=True):
            limits = ", ".join(
                filter(None, (left_out_by(reader, selection), "--label-map" if selection.label_map else ""))
            )
            if limits and missing[0] in set(reader.sample_ids()):
                stands = f"sample_id {missing[0]!r} is in {reader.described}, but in no row selected"
                raise XaiError(stands, hint=f"left out by {limits}")
        raise XaiError(f"no sample_id {missing[0]!r} in {where}", hint="--ids lists samples that one of the runs has")
    kinds = {LABEL: _label_type(readers, found.selections), SAMPLE_ID: readers[0].dtypes[SAMPLE_ID]}
    if kinds[LABEL] == pl.String():
        rows = [{**row, LABEL: None if row[LABEL] is None else label_text(row[LABEL])} for row in rows]
    if isinstance(kinds[LABEL], pl.List):  # of the one class in rows of a label, which is written alone
        rows = [{**row, LABEL: [row[LABEL]]} if row["kind"] == "label" else row for row in rows]
    data = pl.DataFrame(rows, schema=_SCHEMA | kinds, orient="row")
    asked = found.selections[0]
    ignored = [reader.ignored for reader in readers if reader.ignored is not None]
    taken = {pair: tuple(epoch for one in found.selections for epoch in one.epochs[pair]) for pair in found.pairs}
    compared = replace(asked, pairs=found.pairs, epochs=taken)
    return Answer(
        command="compare",
        run=" ".join(reader.layout.described for reader in readers),
        selection={
            **compared.as_dict(),
            "metric": list(found.metrics),
            "runs": [reader.layout.described for reader in readers],
            "max": max,
            "min": min,
            "ids": [str(item) for item in given.ids],
            **given.asked,
        },
        data=data,
        counts=Counts(
            rows=tally.rows,
            non_finite=tally.non_finite,
            duplicates=tally.duplicates,
            stale=n_stale,
            dropped=sum(reader.dropped for reader in readers),
            taken_back=sum(taken.rows for reader in readers for taken in reader.taken_back),
            ignored=sum(ignored) if ignored else None,
            damaged=tuple(f"{reader.layout.described}/{path}" for reader in readers for path in reader.damaged),
        ),
        warnings=tuple(
            dict.fromkeys(
                [
                    *_same(readers),
                    *other_tasks(readers),
                    *found.left_out,
                    *others,
                    *said,
                    *_of_each(readers, found.selections),
                ]
            )
        ),
    )


def _of_each(readers: Sequence[Reader], selections: Sequence[Selection]) -> Iterator[str]:
    """What is said of each run, by its name unless it is said of all; not again what `_left_out` says."""
    held = {pair for one in selections for pair in one.pairs}
    for reader, one in zip(readers, selections, strict=True):
        told = {left_out(pair, why) for pair, why in one.emptied.items() if pair in held and pair not in one.pairs}
        there = {mode for mode, _ in held}
        told |= {left_out((mode, ""), f"it has {what}") for mode, what in one.modes_lacking.items() if mode in there}
        root = reader.layout.described
        for words in one.warnings:
            of_all = words not in reader.warnings and all(words in other.warnings for other in selections)
            if words not in told:
                yield words if of_all or root in words else f"{root}: {words}"


def _valueless(row: Mapping[str, Any], table: pl.DataFrame, readers: Sequence[Reader]) -> Iterator[str]:
    """That a run has rows, and of a metric no mean to compare."""
    for number, (reader, value, n) in enumerate(zip(readers, row["values"], row["n"], strict=True)):
        if value is None and n is not None:
            place = " ".join(filter(None, (row[MODE], row[DS_ID])))
            when = " at its last epoch" if table[f"value{number}"].count() else ""
            among = " among the rows of --where" if reader.where else ""
            yield f"{reader.layout.described} has no finite {row['metric']} in {place}{when}{among}"


def _same(readers: Sequence[Reader]) -> list[str]:
    """What to say of a run that is named more than once."""
    places = [reader.layout.root.resolve() for reader in readers]
    twice = [reader.layout.described for at, reader in enumerate(readers) if places[at] in places[:at]]
    return [f"{root} is compared with itself" for root in twice]


def other_tasks(readers: Sequence[Reader]) -> list[str]:
    """What to say of runs that are known to be of several tasks: none is better by a loss of another kind.

    Yes or no by one number and one of two classes are one task: their losses are the same.
    """
    tasks: dict[str, str] = {}
    for reader in readers:
        if (task := reader.manifest.task) is not None:
            tasks.setdefault(_SAME_LOSSES.get(task, task), f"{task} in {reader.layout.described}")
    if len(tasks) < 2:
        return []
    said = " against ".join(tasks.values())
    return [
        f"the runs are of several tasks ({said}), whose losses are of another kind: none is called better than one of "
        "another task"
    ]


_SAME_LOSSES = {"binary": "classification"}
"""Tasks whose losses are of the kind of another's."""


OTHERWISE = "have another label in"
"""What is said of samples whose labels in two runs are not the same."""


def _other_labels(
    table: pl.DataFrame, readers: Sequence[Reader], pair: Pair, names: Sequence[Mapping[Any, str]]
) -> Iterator[str]:
    """What to say of samples whose label in a later run is another than in the first; sets have no order."""
    first = readers[0].layout.described
    for number, reader in enumerate(readers[1:], 1):
        both = [(f"label{one}", f"name{one}", names[one]) for one in (0, number)]
        known = table.select(name for columns in both for name in columns[:2]).drop_nulls()
        if all(isinstance(known.schema[label], pl.List) for label, _, _ in both):
            known = known.with_columns(
                named_each(known[label], called).list.sort().alias(name) for label, name, called in both
            )
        n = int((known["name0"] != known[f"name{number}"]).sum())
        if n:
            place = " ".join(filter(None, pair))
            yield (
                f"{n:,} of the {known.height:,} samples of {place} in both {OTHERWISE} "
                f"{reader.layout.described} than in {first}: what is right there is not what is right here"
            )


def _alone(table: pl.DataFrame, readers: Sequence[Reader], pair: Pair) -> Iterator[str]:
    """How many samples the first run has and a later one lacks, and the other way round."""
    place, roots = " ".join(filter(None, pair)), [reader.layout.described for reader in readers]
    for number in range(1, len(readers)):
        for one, other in ((0, number), (number, 0)):
            own = table.filter(pl.col(f"{STALE}{one}").is_not_null())
            if n := own.filter(pl.col(f"{STALE}{other}").is_null()).height:
                are = "is" if n == 1 else "are"
                yield f"{n:,} of the {own.height:,} samples of {place} in {roots[one]} {are} not in {roots[other]}"


def _label_type(readers: Sequence[Reader], selections: Sequence[Selection]) -> pl.DataType:
    """The type that holds every run's labels: their own, of several kinds text, of sets a list."""
    kinds = [
        reader.dtypes[one.label_key]
        for reader, one in zip(readers, selections, strict=True)
        if one.label_key in reader.dtypes
    ]
    if not kinds:
        return pl.Null()
    if all(kind.is_integer() for kind in kinds):
        return pl.Int64()
    return kinds[0] if all(kind == kinds[0] for kind in kinds) else pl.String()


def _metric_and_labels(
    readers: Sequence[Reader],
    selections: Sequence[Selection],
    pair: Pair,
    metric: str,
    names: Sequence[Mapping[Any, str]],
) -> list[dict[str, Any]]:
    """The mean of the metric, and of each label, at the last place that each run's selection has rows of."""
    means: list[float | None] = []
    finite: list[int | None] = []
    places: dict[str, list[int | None]] = {EPOCH: [], PASS: []}
    by_label: list[Mapping[Any, Mapping[str, Any]]] = []
    values: dict[Any, Any] = {}
    for reader, selection, called in zip(readers, selections, names, strict=True):
        end = _end(reader, selection, pair, [metric])
        value = end.frame[metric].cast(pl.Float64).mean() if end else None
        means.append(value if isinstance(value, float) else None)
        finite.append(end.frame[metric].count() if end else None)
        places[EPOCH].append(end.place.epoch if end else None)
        places[PASS].append(end.place.turn if end else None)
        found: list[dict[str, Any]] = []
        if end and selection.label_key in reader.dtypes:
            of_epoch = labels(reader, replace(selection, epochs={pair: (end.place.epoch,)}), bounds="none").data
            found = of_epoch.filter(pl.col(PASS) == end.place.turn).to_dicts()
        keys = _keys(found, called)
        by_label.append(dict(zip(keys, found, strict=True)))
        values |= {key: row[LABEL] for key, row in zip(keys, found, strict=True)}
    rows = [_row("metric", pair, metric, means, n=finite, **places)]
    for key in dict.fromkeys(key for of_run in by_label for key in of_run):
        told = [of_run.get(key, {}) for of_run in by_label]
        of_label = {LABEL: values[key], "name": key[0], "n": [row.get("n") for row in told]}
        rows.append(_row("label", pair, metric, [row.get("mean") for row in told], **of_label, **places))
    return rows


def _end(reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str]) -> Rows | None:
    """The rows of the last place that has selected ones; None where no place has."""
    for epoch in reversed(selection.epochs[pair]):
        for rows in walk(reader, selection, pair, columns, epochs=[epoch], backwards=True):
            if rows.frame.height:
                return rows
    return None


def _keys(rows: Sequence[Mapping[str, Any]], names: Mapping[Any, str]) -> list[tuple[str, Any]]:
    """What joins the labels of runs: their name, and their value where several have that name."""
    told = [names.get(row[LABEL], row["name"]) for row in rows]
    labels_of: dict[str, set[Any]] = {}
    for name, row in zip(told, rows, strict=True):
        labels_of.setdefault(name, set()).add(row[LABEL])
    several = {name for name, found in labels_of.items() if len(found) > 1}
    return [(name, row[LABEL] if name in several else None) for name, row in zip(told, rows, strict=True)]


def _samples(
    table: pl.DataFrame, n_runs: int, pair: Pair, metric: str, n_max: int, n_min: int, wanted: Sequence[Any]
) -> list[dict[str, Any]]:
    """The samples that changed most between the first and the last run, listed ones, and those that flipped."""
    last = n_runs - 1
    table = table.with_columns((pl.col(f"value{last}") - pl.col("value0")).alias(SCORE))
    changed = table.filter(pl.col(SCORE).is_not_null())
    flips = table.filter(pl.col("correct0") != pl.col(f"correct{last}")).sort(
        pl.col(SCORE).abs(), SAMPLE_ID, descending=[True, False], nulls_last=True
    )
    groups = {
        Group.MAX.value: extremes(changed.filter(pl.col(SCORE) > 0), n_max, highest=True),
        Group.MIN.value: extremes(changed.filter(pl.col(SCORE) < 0), n_min, highest=False),
        Group.LISTED.value: table.filter(pl.col(SAMPLE_ID).is_in(wanted)),
        FLIPPED: flips,
    }
    return [
        _row(
            "sample",
            pair,
            metric,
            [row[f"value{number}"] for number in range(n_runs)],
            **next(
                (
                    {LABEL: row[f"label{n}"], "name": row[f"name{n}"]}
                    for n in range(last, -1, -1)
                    if row[f"label{n}"] is not None
                ),
                {},
            ),
            sample_id=row[SAMPLE_ID],
            group=group,
            rank=rank,
            correct=[row[f"correct{number}"] for number in range(n_runs)],
            stale=[_is_stale(row[f"value{number}"], row[f"{STALE}{number}"]) for number in range(n_runs)],
        )
        for group, frame in groups.items()
        for rank, row in enumerate(frame.iter_rows(named=True), 1)
    ]


def _is_stale(value: float | None, of_earlier: bool | None) -> bool | None:
    """Whether a run's value of a sample is stale, as it is where it never had a finite one; null without the sample."""
    return None if of_earlier is None else of_earlier or value is None


def joined_at_end(readers: Sequence[Reader], selections: Sequence[Selection], pair: Pair, metric: str) -> pl.DataFrame:
    """Each sample's last value of a metric in every run.

    Returns:
        sample_id, and for the run of number k value<k> (float64), value_stale<k> (whether it is of an earlier epoch
        than the last), correct<k> (bool), label<k>, name<k> and stale<k> (whether value or correct is of an earlier
        epoch), null where the run has none.

    Raises:
        XaiError: The runs' sample ids are of different kinds.
    """
    right = right_by(readers, selections[0].label_key)
    sources = [_source(*one, pair) for one in zip(readers, selections, right, strict=True)]
    return _at_ends(readers, selections, pair, metric, sources, names_of_runs(readers, selections), right)


def _source(reader: Reader, selection: Selection, right: tuple[str, pl.Expr], pair: Pair) -> Epochwise:
    """The rows of a run, with what tells whether they are right where anything does."""
    judged = right[:1] if right[0] in reader.dtypes else ()
    return Epochwise(reader, replace(selection, metrics=tuple(dict.fromkeys([*selection.metrics, *judged]))), pair)


def _at_ends(
    readers: Sequence[Reader],
    selections: Sequence[Selection],
    pair: Pair,
    metric: str,
    sources: Sequence[Epochwise],
    names: Sequence[Mapping[Any, str]],
    right: Sequence[tuple[str, pl.Expr]],
) -> pl.DataFrame:
    """What `joined_at_end` gives, of runs that are opened.

    Raises:
        XaiError: The runs' sample ids are of different kinds.
    """
    joined: pl.DataFrame | None = None
    for number, (reader, selection, source) in enumerate(zip(readers, selections, sources, strict=True)):
        found = _at_end(reader, selection, pair, metric, source, names[number], right[number])
        found = found.rename({name: f"{name}{number}" for name in found.columns if name != SAMPLE_ID})
        if joined is not None and joined.schema[SAMPLE_ID] != found.schema[SAMPLE_ID]:
            kinds = {reader.layout.described: reader.manifest.id_type for reader in (readers[0], reader)}
            said = " and ".join(f"{kind} in {root}" for root, kind in kinds.items())
            raise XaiError(
                f"the runs have different kinds of sample ids: {said}",
                hint="name the runs over the same data: xai compare A B",
            )
        joined = found if joined is None else joined.join(found, on=SAMPLE_ID, how="full", coalesce=True)
    assert joined is not None
    return joined


def _at_end(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    metric: str,
    source: Epochwise,
    names: Mapping[Any, str],
    right: tuple[str, pl.Expr],
) -> pl.DataFrame:
    """The last value of each sample, whether it is right, its label and the label's name, and whether they are stale.

    Samples of the last epoch that have no value are among them.
    """
    key = selection.label_key
    known = key in reader.dtypes
    columns = list(dict.fromkeys([SAMPLE_ID, key]))
    end = _end(reader, selection, pair, columns)
    at_end = end.frame if end else pl.DataFrame(schema={name: reader.dtypes.get(name, pl.Null()) for name in columns})
    at_end = at_end.unique(SAMPLE_ID, keep="last", maintain_order=True)
    own = (pl.col(key) if known else pl.lit(None)).alias(LABEL)
    joined = at_end.select(SAMPLE_ID, own, pl.lit(True).alias("_there"))
    told = {"value": source.last_scores(metric, with_label=True)}
    if right[0] in reader.dtypes:
        told[CORRECT] = source.last_scores(right[1], with_label=True)
    for name, scores in told.items():
        found = scores.select(
            SAMPLE_ID, pl.col(SCORE).alias(name), pl.col(STALE).alias(f"_stale_{name}"), pl.col(LABEL).alias(f"_{name}")
        )
        joined = joined.join(found, on=SAMPLE_ID, how="full", coalesce=True)
    stale = pl.any_horizontal(pl.col(f"_stale_{name}").fill_null(value=False) for name in told)
    # A label that is missing at the end is not that of an earlier epoch.
    earlier = pl.coalesce(f"_{name}" for name in told)
    label = pl.when("_there").then(LABEL).otherwise(earlier) if known else pl.lit(None)
    correct = pl.col(CORRECT).cast(pl.Boolean) if CORRECT in told else pl.lit(None, pl.Boolean).alias(CORRECT)
    of_value = pl.col("_stale_value").alias("value_stale")
    joined = joined.select(SAMPLE_ID, "value", of_value, correct, label.alias(LABEL), stale.alias(STALE))
    return joined.with_columns(named(joined[LABEL], names).alias("name"))


def _row(kind: str, pair: Pair, metric: str, values: Sequence[float | None], **more: Any) -> dict[str, Any]:
    first, last = values[0], values[-1]
    change = None if first is None or last is None else last - first
    known = {"kind": kind, MODE: pair[0], DS_ID: pair[1], "metric": metric, "values": list(values), "change": change}
    return {**dict.fromkeys(_SCHEMA), **known, **more}


_MOST_SAMPLES = 3000
"""Samples of a picture; of more every k-th."""


@dataclass(frozen=True)
class Comparison:
    """One (mode, ds_id, metric) of several runs, for their pictures.

    Attributes:
        pair: mode and ds_id.
        metric: The metric.
        means: For each run epoch (int32), pass (int16) and mean (float64, null where no value is finite), over all
            samples.
        labels: For each run name, epoch, pass, mean and n of each label; empty where it has no labels.
        samples: sample_id, first and last (float64: the value in the first and the last run), first_correct and
            last_correct (bool, nullable), of the samples that have both, at most a few thousand, evenly chosen; with
            their facts where the runs know any.
    """

    pair: Pair
    metric: str
    means: tuple[pl.DataFrame, ...]
    labels: tuple[pl.DataFrame, ...]
    samples: pl.DataFrame


def over_epochs(readers: Sequence[Reader], **select: Any) -> list[Comparison]:
    """What `compare` shows at the last epoch, at all of them.

    Args:
        readers: The runs, in order.
        select: What `resolve` takes.

    Raises:
        XaiError: As `compare`.
    """
    found = shared(readers, **select)
    return [
        _comparison(readers, [replace(s, pairs=(pair,), metrics=(metric,)) for s in found.selections], pair, metric)
        for pair in found.pairs
        for metric in found.metrics
    ]


def _comparison(readers: Sequence[Reader], selections: Sequence[Selection], pair: Pair, metric: str) -> Comparison:
    both = list(zip(readers, selections, strict=True))
    at_end = joined_at_end((readers[0], readers[-1]), (selections[0], selections[-1]), pair, metric)
    samples = at_end.select(
        SAMPLE_ID,
        pl.col("value0").alias("first"),
        pl.col("value1").alias("last"),
        pl.col(f"{CORRECT}0").alias("first_correct"),
        pl.col(f"{CORRECT}1").alias("last_correct"),
    ).drop_nulls(["first", "last"])
    stride = -(-samples.height // _MOST_SAMPLES) or 1
    return Comparison(
        pair,
        metric,
        tuple(_means(reader, selection, pair, metric) for reader, selection in both),
        tuple(
            _labels(reader, selection, names)
            for (reader, selection), names in zip(both, names_of_runs(readers, selections), strict=True)
        ),
        facts_beside(samples.sort(SAMPLE_ID).gather_every(stride), readers[0]),
    )


def _means(reader: Reader, selection: Selection, pair: Pair, metric: str) -> pl.DataFrame:
    places = walk(reader, selection, pair, [metric])
    rows = [(rows.place.epoch, rows.place.turn, rows.frame[metric].cast(pl.Float64).mean()) for rows in places]
    return pl.DataFrame(rows, schema={EPOCH: pl.Int32(), PASS: pl.Int16(), "mean": pl.Float64()}, orient="row")


def _labels(reader: Reader, selection: Selection, names: Mapping[Any, str]) -> pl.DataFrame:
    wanted = ["name", EPOCH, PASS, "mean", "n"]
    if selection.label_key not in reader.dtypes:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.Null()))
    found = labels(reader, selection, bounds="none").data
    told = [names.get(label, name) for label, name in found.select(LABEL, "name").iter_rows()]
    return found.with_columns(pl.Series("name", told, pl.String)).select(wanted)
