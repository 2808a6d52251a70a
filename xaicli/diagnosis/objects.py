"""How a detector errs: what it found, missed and made up in every picture, through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.diagnosis.slices import coded
from xaicli.errors import UsageError, XaiError, unknown, whole_number
from xaicli.queries.resolution import epoch_test
from xaicli.reader import Reader
from xaicli.reader.lazy import scan_table, taken_back_of
from xaicli.reader.rows import Where
from xaicli.tables.schema import class_names
from xaicli.vocabulary import EPOCH, LABEL, MODE, PREDICTION, SAMPLE_ID
from xaicli.words import chosen_names, fraction, ranges

Floats = NDArray[np.float64]

BACKGROUND = "(background)"
"""What a false positive is taken from, and a missed object for."""
TABLES = ("boxes", "instances")
"""What the collectors of objects write."""
_RECALLS = np.linspace(0.0, 1.0, 101)
_BOX = ("x0", "y0", "x1", "y1")
_NEEDED = ("example_id", "instance_id", "source", LABEL, "confidence", "iou", "outcome", *_BOX)
_APART = 0.1
"""A false positive that overlaps no true object by more stands alone."""
_SURE = 0.5
_SUREST = 500
_STEADY = 3
_SAME = 0.5
"""Boxes of several epochs that overlap so much are one and the same."""


def precision_area(hits: NDArray[np.bool_], n_true: int) -> float:
    """The mean, over 101 recalls from 0 to 1, of the highest precision at that recall or above.

    Args:
        hits: (N,) whether each prediction is right, by falling confidence.
        n_true: How many true objects there are.
    """
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / n_true, _RECALLS, side="left")
    return float(np.where(places < len(hits), highest[np.minimum(places, len(hits) - 1)], 0.0).mean())


def object_tables(reader: Reader) -> list[str]:
    """The run's tables whose rows are objects."""
    names = reader.table_folders()
    return [name for name in TABLES if name in names]


def object_errors(
    reader: Reader,
    table: str,
    chosen: Places | None = None,
    *,
    top: int = 20,
    by: list[str] | None = None,
    where: Where | None = None,
) -> Answer:
    """How the objects of a table were found, epoch by epoch, and of the last one in detail.

    Args:
        reader: The run.
        table: Rows of `BoundingBoxMetricsCollector` or `InstanceMaskMetricsCollector`.
        chosen: Only these places; all when None.
        top: At most how many pictures and suspects are listed.
        by: Facts of the pictures whose values get figures of their own, at the last epoch.
        where: Only pictures whose facts meet this.

    Returns:
        Rows mode (the split), ds_id, epoch, pass, step, pictures, empty (pictures without any object that counts:
        known where the collector wrote its row of the table `metrics`), tp, fp, fn (crowds and what falls on them left
        out), precision, recall, mean_iou (of the matches) and average_precision (the mean over the classes that have
        true objects). Of the last epoch: `classes`, `confusion` (label, prediction, n: of what was missed and made up,
        by the largest overlap with an object of another class, else the background), `worst` pictures (sample_id, tp,
        fp, fn, mean_iou, `history` over the epochs, `boxes`) and `suspects`: a prediction surer than one half that
        overlaps no true object (`made_up`, a label may be missing; of the 500 surest), and a true object that no epoch
        found: where none was sure of anything that is not another object (`never_found`), a third or more told of
        another class (`other_class`, which is `suggested`), or were sure of something that overlaps it too little
        (`badly_placed`). `n` tells how many suspects and pictures with something wrong there are; `groups`, with `by`,
        the figures of the pictures of each value of a fact (column, value, n: how many pictures).

    Raises:
        UsageError: `top` is negative, or `where` names what is no fact.
        XaiError: There is no such table or fact, its rows are no objects, or none is left.
    """
    top = whole_number("--top", top, least=0, hint="--top 0 lists none")
    by = list(dict.fromkeys(by or ()))
    for name in by:
        if name not in reader.facts.names:
            note = reader.facts.left_out
            raise unknown("fact", name, reader.facts.names, where=reader.layout.described, note=note)
    rows = _rows(reader, table, chosen)
    names = class_names(reader.layout, table, LABEL)
    told = _pictures_told(reader, rows.schema[SAMPLE_ID])
    if where is not None:
        chosen_ids = _meeting(reader, where, pl.concat([rows[SAMPLE_ID], *told.values()]).unique())
        rows = rows.filter(pl.col(SAMPLE_ID).is_in(chosen_ids.implode()))
        told = {key: ids.filter(ids.is_in(chosen_ids.implode())) for key, ids in told.items()}
        if rows.is_empty():
            raise XaiError(
                f"no object of table {table} is in a picture that --where picks", hint=f"--where {where.text}"
            )
    found: list[dict[str, Any]] = []
    details: dict[str, list[dict[str, Any]]] = {"classes": [], "confusion": [], "worst": [], "suspects": [], "n": []}
    details |= {"groups": []} if by else {}
    for (split,), of_split in rows.group_by(MODE, maintain_order=True):
        own = {MODE: split, "ds_id": ""}
        epochs = of_split[EPOCH].unique().sort().to_list()
        for one in epochs:
            part = of_split.filter(pl.col(EPOCH) == one)
            figures, with_objects = _figures(part), part[SAMPLE_ID].unique()
            every = told.get((split, one), pl.Series(with_objects.name, [], with_objects.dtype))
            empty = every.filter(~every.is_in(with_objects.implode())).len() if every.dtype == with_objects.dtype else 0
            figures["pictures"] += empty
            found.append({**own, EPOCH: one, "pass": 0, "step": None, "empty": empty, **figures})
        last = of_split.filter(pl.col(EPOCH) == epochs[-1])
        every = pl.concat([last[SAMPLE_ID], told.get((split, epochs[-1]), last[SAMPLE_ID].clear())]).unique()
        details["groups" if by else "n"] += [{**own, **row} for row in _groups(reader, last, every, by)]
        details["classes"] += [{**own, **row} for row in _classes(last, names)]
        details["confusion"] += [{**own, **row} for row in _confusion(last, names)]
        wrong, doubted = _wrong(last), _suspects(of_split, epochs, names)
        details["worst"] += [{**own, **row} for row in _worst(of_split, last, wrong.head(top), names)]
        details["suspects"] += [{**own, **row} for row in doubted[:top]]
        details["n"].append({**own, "suspects": len(doubted), "worst": wrong.height})
    selection = {**told_places(chosen), "table": table, "top": top}
    selection |= ({"by": by} if by else {}) | ({"where": where.text} if where is not None else {})
    taken_back = taken_back_of(reader, table)
    return Answer(
        command="errors",
        run=reader.layout.described,
        selection=selection,
        data=pl.DataFrame(found, infer_schema_length=None),
        counts=replace(reader.counts(), taken_back=sum(taken.rows for taken in taken_back)),
        warnings=(*reader.faults, *map(str, taken_back), *(chosen.left_out if chosen is not None else ())),
        extra={
            "task": "objects",
            **{name: _frame(part) if name in ("worst", "suspects") else part for name, part in details.items()},
        },
    )


def _meeting(reader: Reader, where: Where, ids: pl.Series) -> pl.Series:
    """The pictures whose facts meet a condition.

    Raises:
        UsageError: It names something else: of one object alone nothing tells whether it was missed.
    """
    facts = reader.facts
    if other := next((name for name in where.columns if name not in (SAMPLE_ID, *facts.names)), None):
        known = ", ".join(facts.names) or "none is known"
        raise UsageError(
            f"--where {where.text!r} names {other}: of collected objects it picks pictures by their facts",
            hint=f"facts: {known}",
        )
    with where.answering():
        return facts.of(_as_known(reader, ids)).filter(where.expr)[SAMPLE_ID].cast(ids.dtype)


def _as_known(reader: Reader, ids: pl.Series) -> pl.Series:
    return ids.cast(reader.facts.frame.schema[SAMPLE_ID], strict=False)


def _groups(reader: Reader, last: pl.DataFrame, pictures: pl.Series, by: Sequence[str]) -> list[dict[str, Any]]:
    """The figures of an epoch by each value of some facts of its pictures; those of numbers by quintile."""
    if not by:
        return []
    facts = reader.facts.of(_as_known(reader, pictures))
    found = []
    for name in by:
        groups = coded(facts[name])
        for code, value in enumerate(groups.names):
            own = pictures.filter(pl.Series(groups.codes == code))
            if own.len():
                figures = _figures(last.filter(pl.col(SAMPLE_ID).is_in(own.implode())))
                found.append({"column": name, "value": value, "n": own.len(), **figures, "pictures": own.len()})
    return found


def _pictures_told(reader: Reader, kind: pl.DataType) -> dict[tuple[str, int], pl.Series]:
    """{(split, epoch): the pictures that a collector of objects looked at}: it has a row of each, of empty ones too.

    Args:
        reader: The run.
        kind: What the table of the objects holds the ids in: that of the pictures may have rows of other tables, too.
    """
    lazy = scan_table(reader, reader.layout.tables / "metrics")
    present = lazy.collect_schema() if lazy is not None else pl.Schema()
    if lazy is None or any(name not in present for name in ("tp", "fp", "fn")):
        return {}
    counted = lazy.filter(pl.all_horizontal(pl.col(name).is_not_null() for name in ("tp", "fp", "fn")))
    frame = counted.select(*_placed(present)).cast({SAMPLE_ID: kind}, strict=False).unique().collect(engine="streaming")
    return {(str(split), int(epoch)): part[SAMPLE_ID] for (split, epoch), part in frame.group_by(MODE, EPOCH)}


def _placed(present: pl.Schema) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The split, the epoch and the picture of a collector's rows."""
    split = next((name for name in (MODE, "split") if name in present), None)
    return (
        (pl.col(split).cast(pl.String).fill_null("") if split else pl.lit("")).alias(MODE),
        (pl.col(EPOCH).cast(pl.Int32).fill_null(0) if EPOCH in present else pl.lit(0, pl.Int32)).alias(EPOCH),
        pl.col(SAMPLE_ID if SAMPLE_ID in present else "example_id").alias(SAMPLE_ID),
    )


def _frame(rows: list[dict[str, Any]]) -> Any:
    return pl.DataFrame(rows, infer_schema_length=None) if rows else rows


def doubted_objects(
    reader: Reader, table: str, chosen: Places | None = None
) -> tuple[pl.DataFrame, list[dict[str, Any]], pl.DataFrame]:
    """The objects of the last epoch of each split as they are recorded, those that are doubted, and all pictures.

    Args:
        reader: The run.
        table: As for `object_errors`.
        chosen: Only these places; all when None.

    Returns:
        Rows mode, epoch, sample_id, instance_id, label, x0, y0, x1, y1, outcome ("ignored" of a crowd); and the
        suspects as `object_errors` tells them, all there are, with mode and the instance_id of a recorded one; and
        mode and sample_id of every picture in which anything was recorded or found.

    Raises:
        XaiError: As `object_errors`.
    """
    rows = _rows(reader, table, chosen, ignored=True)
    names = class_names(reader.layout, table, LABEL)
    recorded, doubted = [], []
    for (split,), of_split in rows.group_by(MODE, maintain_order=True):
        judged = of_split.filter(pl.col("outcome") != "ignored")
        epochs = of_split[EPOCH].unique().sort().to_list()
        recorded.append(of_split.filter(pl.col(EPOCH) == epochs[-1], pl.col("source") == "gt"))
        if judged.height:
            doubted += [{MODE: split, **row} for row in _suspects(judged, epochs, names)]
    columns = (MODE, EPOCH, SAMPLE_ID, "instance_id", LABEL, *_BOX, "outcome")
    pictures = rows.select(MODE, SAMPLE_ID).unique(maintain_order=True)
    return pl.concat(recorded).select(columns), doubted, pictures


def every_picture(reader: Reader, table: str) -> pl.DataFrame:
    """mode and sample_id of every picture of a table of objects, whatever is chosen of it."""
    lazy = _scanned(reader, table)
    placed = lazy.select(*_placed(lazy.collect_schema())).select(MODE, SAMPLE_ID)
    return placed.unique(maintain_order=True).collect(engine="streaming")


@dataclass(frozen=True)
class Places:
    """What is chosen of a table of objects.

    Attributes:
        epochs: {split: its epochs}, ascending.
        modes_said: Whether splits were chosen.
        epoch_asked: The epochs in the words they were asked for; empty for all.
        left_out: What is said of each split that the epochs asked for leave without any.
    """

    epochs: Mapping[str, Sequence[int]]
    modes_said: bool
    epoch_asked: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def places(reader: Reader, table: str, mode: list[str] | None, epoch: list[str] | None) -> Places | None:
    """The places of a table of objects that are asked for, in the words that choose rows of samples.

    Args:
        reader: The run.
        table: The table's name.
        mode: Splits, `all`, or `!` before one to leave out.
        epoch: Numbers, ranges, `first` and `last`, which are those of each split.

    Returns:
        The places; None where nothing is chosen.

    Raises:
        UsageError: A word is no epoch.
        XaiError: There is no such table, split or epoch.
    """
    if not mode and not epoch:
        return None
    lazy = _scanned(reader, table)
    rows = lazy.select(*_placed(lazy.collect_schema())).select(MODE, EPOCH).unique().sort(MODE, EPOCH)
    of_table: dict[str, list[int]] = {}
    for split, one in rows.collect(engine="streaming").iter_rows():
        of_table.setdefault(split, []).append(one)
    known = list(of_table)
    where = f"table {table} of {reader.layout.described}"
    splits = known
    if mode:
        splits = chosen_names("mode", mode, known, allowed=known, where=where, elsewhere=reader.names_elsewhere(MODE))
    every = sorted({one for split in splits for one in of_table[split]})
    elsewhere = reader.words_of_epochs()
    tests = [epoch_test(word, every, where=where, elsewhere=elsewhere) for word in epoch or ()]
    taken = {
        split: [one for one in of_table[split] if not tests or any(test(one, of_table[split]) for test in tests)]
        for split in splits
    }
    none = f"--epoch {','.join(epoch or ())} takes none of its epochs"
    left_out = tuple(
        f"{split or where} is left out: {none}, {', '.join(ranges(of_table[split]))}"
        for split, epochs in taken.items()
        if not epochs
    )
    return Places(taken, bool(mode), tuple(epoch or ()), left_out)


def told_places(chosen: Places | None) -> dict[str, Any]:
    """The splits and epochs chosen as an answer tells them; empty where all are meant."""
    modes = list(chosen.epochs) if chosen is not None and chosen.modes_said else []
    asked = chosen.epoch_asked if chosen is not None else ()
    epochs = {one for of_split in chosen.epochs.values() for one in of_split} if chosen and asked else ()
    return {MODE: modes, EPOCH: sorted(epochs), "epoch_asked": list(asked)}


def _scanned(reader: Reader, table: str) -> pl.LazyFrame:
    folders = reader.table_folders()
    where = reader.layout.described
    if table not in folders:
        raise unknown("table", table, folders, where=where)
    lazy = scan_table(reader, folders[table])
    if lazy is None:
        raise XaiError(f"table {table} of {where} has no rows", hint="see: xai doctor")
    present = lazy.collect_schema()
    if missing := [name for name in _NEEDED if name not in present]:
        raise XaiError(
            f"the rows of table {table} are no objects: there is no {missing[0]}",
            hint="BoundingBoxMetricsCollector writes the table boxes, InstanceMaskMetricsCollector instances",
            refused=("table",),
        )
    return lazy


def _rows(reader: Reader, table: str, chosen: Places | None, *, ignored: bool = False) -> pl.DataFrame:
    lazy = _scanned(reader, table)
    frame = lazy.select(
        *_placed(lazy.collect_schema()),
        *(name for name in _NEEDED if name != "example_id"),
    ).collect(engine="streaming")
    if not ignored:
        frame = frame.filter(pl.col("outcome") != "ignored")
    if chosen is not None:
        taken = [(split, one) for split, epochs in chosen.epochs.items() for one in epochs]
        keys = pl.DataFrame(taken, schema={MODE: pl.String(), EPOCH: pl.Int32()}, orient="row")
        frame = frame.join(keys, on=[MODE, EPOCH], how="semi", maintain_order="left")
    if frame.is_empty():
        raise XaiError(f"no object of table {table} is left", hint="every row is a crowd, or left out")
    return frame


def _figures(rows: pl.DataFrame) -> dict[str, Any]:
    predicted, true = rows.filter(pl.col("source") == "pred"), rows.filter(pl.col("source") == "gt")
    tp = predicted.filter(pl.col("outcome") == "tp").height
    fp, fn = predicted.height - tp, true.filter(pl.col("outcome") == "fn").height
    by_class = _precisions(rows)
    return {
        "pictures": rows[SAMPLE_ID].n_unique(),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
        "mean_iou": predicted.filter(pl.col("outcome") == "tp")["iou"].cast(pl.Float64).mean(),
        "average_precision": sum(by_class.values()) / len(by_class) if by_class else None,
    }


def _precisions(rows: pl.DataFrame) -> dict[int, float]:
    """{class: average precision} of those with true objects."""
    found = {}
    for label in rows.filter(pl.col("source") == "gt")[LABEL].unique().sort():
        own = rows.filter(pl.col(LABEL) == label)
        predicted = own.filter(pl.col("source") == "pred").sort("confidence", descending=True, maintain_order=True)
        hits = (predicted["outcome"] == "tp").to_numpy()
        found[int(label)] = precision_area(hits, own.filter(pl.col("source") == "gt").height)
    return found


def _called(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _classes(rows: pl.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    precisions = _precisions(rows)
    told = []
    for label in rows[LABEL].unique().sort():
        own = rows.filter(pl.col(LABEL) == label)
        figures = _figures(own)
        counts = {name: figures[name] for name in ("tp", "fp", "fn", "precision", "recall", "mean_iou")}
        ap = precisions.get(int(label))
        told.append({LABEL: int(label), "name": _called(int(label), names), **counts, "average_precision": ap})
    return told


def overlaps(a: Floats, b: Floats) -> Floats:
    """(A, B) intersection over union of boxes (x0, y0, x1, y1); 0 where one has no area or is not finite."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(part[:, 2:] - part[:, :2], 0, None).prod(axis=1) for part in (a, b)]
    either = areas[0][:, None] + areas[1][None, :] - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.where(either > 0, both / either, 0.0))


def _boxes(rows: pl.DataFrame) -> Floats:
    return rows.select(_BOX).to_numpy().astype(np.float64)


def _confusion(rows: pl.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """How often an object of a class was found as another; None stands for the background."""
    counts: dict[tuple[int | None, int | None], int] = {}

    def add(label: int | None, prediction: int | None) -> None:
        counts[label, prediction] = counts.get((label, prediction), 0) + 1

    least = _SAME
    for _, picture in rows.group_by(SAMPLE_ID, maintain_order=True):
        true, predicted = (picture.filter(pl.col("source") == source) for source in ("gt", "pred"))
        for label in true.filter(pl.col("outcome") == "tp")[LABEL]:
            add(label, label)
        missed = true.filter(pl.col("outcome") == "fn")
        made_up = predicted.filter(pl.col("outcome") == "fp").sort("confidence", descending=True, maintain_order=True)
        shared = overlaps(_boxes(made_up), _boxes(missed))
        free = set(range(missed.height))
        for i, prediction in enumerate(made_up[LABEL]):
            best = max(free, key=lambda j: shared[i, j], default=None)
            if best is not None and shared[i, best] >= least and missed[LABEL][best] != prediction:
                free.discard(best)
                add(missed[LABEL][best], prediction)
            else:
                add(None, prediction)
        for j in sorted(free):
            add(missed[LABEL][j], None)
    called: Mapping[int | None, str] = {None: BACKGROUND} | {
        label: _called(label, names) for pair in counts for label in pair if label is not None
    }
    order = sorted(counts, key=lambda pair: [(end is None, end or 0) for end in pair])
    return [
        {LABEL: a, PREDICTION: b, "name": called[a], "prediction_name": called[b], "n": counts[a, b]} for a, b in order
    ]


def _pictures(rows: pl.DataFrame) -> pl.DataFrame:
    """Per picture and epoch: tp, fp, fn, mean_iou."""
    is_pred, outcome = pl.col("source") == "pred", pl.col("outcome")
    hit = is_pred & (outcome == "tp")
    return rows.group_by(SAMPLE_ID, EPOCH, maintain_order=True).agg(
        hit.sum().cast(pl.Int64).alias("tp"),
        (is_pred & (outcome == "fp")).sum().cast(pl.Int64).alias("fp"),
        (~is_pred & (outcome == "fn")).sum().cast(pl.Int64).alias("fn"),
        pl.col("iou").cast(pl.Float64).filter(hit).mean().alias("mean_iou"),
    )


def _wrong(last: pl.DataFrame) -> pl.DataFrame:
    """The pictures in which something is missed or made up: most of it first, then the lowest overlap; ties by id."""
    told = _pictures(last).with_columns((pl.col("fp") + pl.col("fn")).alias("wrong"))
    ordered = told.sort("wrong", "mean_iou", SAMPLE_ID, descending=[True, False, False], nulls_last=True)
    return ordered.filter(pl.col("wrong") > 0)


def _worst(rows: pl.DataFrame, last: pl.DataFrame, chosen: pl.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Some pictures with their histories and the boxes of the last epoch."""
    past = _pictures(rows.filter(pl.col(SAMPLE_ID).is_in(chosen[SAMPLE_ID].implode()))).sort(EPOCH)
    found = []
    for row in chosen.drop(EPOCH, "wrong").iter_rows(named=True):
        own = last.filter(pl.col(SAMPLE_ID) == row[SAMPLE_ID])
        history = past.filter(pl.col(SAMPLE_ID) == row[SAMPLE_ID]).drop(SAMPLE_ID).to_dicts()
        found.append({**row, "history": history, "boxes": [_box(one, names) for one in own.iter_rows(named=True)]})
    return found


def _box(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("source", "outcome", "confidence", *_BOX)}
    return {**kept, LABEL: int(row[LABEL]), "name": _called(int(row[LABEL]), names)}


def _suspects(rows: pl.DataFrame, epochs: list[int], names: Sequence[str]) -> list[dict[str, Any]]:
    found = [*_never_found(rows, epochs, names), *_made_up(rows, epochs, names)]
    found.sort(key=lambda row: (-row["score"], -row["times"], *_by_id(row[SAMPLE_ID]), row["x0"], row["y0"]))
    return found


def _by_id(item: Any) -> tuple[int, str]:
    """Numbers in their order, texts in theirs."""
    return (item, "") if isinstance(item, int) else (0, str(item))


def _never_found(rows: pl.DataFrame, epochs: list[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """The true objects that every epoch missed, each with what was told of there; what is in no doubt is left out."""
    true = rows.filter(pl.col("source") == "gt")
    keys = [SAMPLE_ID, "instance_id"]
    times = true.group_by(keys).agg(pl.len().alias("n_obs"), (pl.col("outcome") == "fn").sum().alias("times"))
    never = times.filter(pl.col("times") == pl.col("n_obs"))
    lost = true.filter(pl.col(EPOCH) == epochs[-1]).join(never, on=keys, how="inner", maintain_order="left")
    told = rows.filter(pl.col("source") == "pred", pl.col(SAMPLE_ID).is_in(lost[SAMPLE_ID].implode()))
    by_picture = {key[0]: part for key, part in told.partition_by(SAMPLE_ID, as_dict=True).items()}
    found = []
    for row in lost.iter_rows(named=True):
        predicted = by_picture.get(row[SAMPLE_ID], told.clear())
        here = np.array([[row[name] for name in _BOX]], np.float64)
        shared = pl.Series("shared", overlaps(here, _boxes(predicted))[0], dtype=pl.Float64)
        doubt = _doubt(row, predicted.with_columns(shared).filter(pl.col("shared") > _APART), names)
        if doubt is not None:
            own = {SAMPLE_ID: row[SAMPLE_ID], "n_obs": row["n_obs"], "instance_id": row["instance_id"]}
            found.append({**own, **_box(row, names), **doubt})
    return found


def _doubt(row: Mapping[str, Any], near: pl.DataFrame, names: Sequence[str]) -> dict[str, Any] | None:
    """What is doubted of a true object that every epoch missed; None where what was told there explains it.

    Args:
        row: The object.
        near: The predictions that overlap it by more than `_APART`, of all epochs, with how much (`shared`).
        names: Of the classes.
    """
    label, n_obs = int(row[LABEL]), int(row["n_obs"])
    called = _called(label, names)
    free = near.filter(pl.col("outcome") == "fp")  # the others stand for another object
    sure = free.filter(pl.col("confidence") > _SURE)
    at_it = free.filter(pl.col("shared") >= _SAME)
    if sure.is_empty() and at_it.is_empty():
        if free.height:
            said = f"{called} where none of {n_obs} epochs was sure of anything"
        elif near.height:
            said = f"{called} that none of {n_obs} epochs found; what was found there stands for another object"
        else:
            said = f"{called} where none of {n_obs} epochs found anything"
        return {"doubt": "never_found", "score": 1.0, "times": row["times"], "reason": said}
    other, n_other = _most(at_it.filter(pl.col(LABEL) != label))
    _, n_own = _most(sure.filter(pl.col(LABEL) == label))
    if n_other * _STEADY >= n_obs and n_other >= n_own:
        said = f"{called} that no epoch found; {n_other} of {n_obs} found {_called(other, names)} there"
        score = n_other / n_obs
        return {"doubt": "other_class", "score": score, "times": n_other, "reason": said, "suggested": other}
    placed, n = _most(sure)
    if n * _STEADY < n_obs:
        return None
    best = sure.filter(pl.col(LABEL) == placed).sort("shared").group_by(EPOCH).last()
    shared = best["shared"].to_numpy()
    off = float((best["confidence"].cast(pl.Float64).to_numpy() * (1 - shared)).sum()) / n_obs
    said = f"{called} that no epoch found; {n} of {n_obs} placed {_called(placed, names)} off it"
    said += f", IoU {fraction(float(shared.max()))}" + ("" if n == 1 else " at most")
    return {"doubt": "badly_placed", "score": off, "times": n, "reason": said}


def _most(near: pl.DataFrame) -> tuple[int, int]:
    """The class that was told of in most epochs, and in how many; -1 and 0 of none."""
    epochs = near.group_by(LABEL).agg(pl.col(EPOCH).n_unique().alias("n")).sort("n", LABEL, descending=[True, False])
    return (int(epochs[LABEL][0]), int(epochs["n"][0])) if epochs.height else (-1, 0)


def _made_up(rows: pl.DataFrame, epochs: list[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """The sure predictions of the last epoch that stand apart from every true object."""
    last = rows.filter(pl.col(EPOCH) == epochs[-1])
    sure = last.filter(pl.col("source") == "pred", pl.col("outcome") == "fp", pl.col("confidence") > _SURE)
    found = []
    for row in sure.sort("confidence", descending=True, maintain_order=True).head(_SUREST).iter_rows(named=True):
        picture = rows.filter(pl.col(SAMPLE_ID) == row[SAMPLE_ID])
        here = np.array([[row[name] for name in _BOX]], np.float64)
        true = picture.filter(pl.col(EPOCH) == epochs[-1], pl.col("source") == "gt")
        if true.height and overlaps(here, _boxes(true)).max() > _APART:
            continue
        alike = picture.filter(pl.col("source") == "pred", pl.col(LABEL) == row[LABEL])
        same = alike.filter(pl.Series(overlaps(here, _boxes(alike))[0] >= _SAME))
        times = same[EPOCH].n_unique()
        said, share = _called(int(row[LABEL]), names), fraction(row["confidence"])
        where = f"in {times} of {len(epochs)} epochs"
        found.append(
            {
                SAMPLE_ID: row[SAMPLE_ID],
                "doubt": "made_up",
                "score": float(row["confidence"]) * times / len(epochs),
                "times": times,
                "n_obs": len(epochs),
                **_box(row, names),
                "reason": f"{said} with confidence {share} where no object is labelled, {where}",
            }
        )
    return found
