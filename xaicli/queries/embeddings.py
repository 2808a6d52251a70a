"""Collected embeddings as points of a plane, each with a value to colour it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.names import told_as, with_facts
from xaicli.queries.selection import Pair
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import BY_ROW, scan_table, taken_back_of
from xaicli.tables.pca import PCA
from xaicli.tables.schema import CategoricalLabel, Embedding, Schema, stored_schemas
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID, fact_columns
from xaicli.words import ranges

_COLOURS = (LABEL, "labels", "predicted", "loss")
_IDS = (SAMPLE_ID, "example_id")
_EPOCH = "epoch"
_SPLIT = "split"
_SMALLEST = 2
_GROUPS = 10
"""Of so many whole numbers each is a group of its own."""
_X, _Y = "\0x", "\0y"
"""The places of the points; no column that colours them is called so."""
_COLLECT = "collect them with: xai collect RUN_DIR --model CKPT --data ... --collectors embeddings --layers LAYER"


def embeddings(
    reader: Reader,
    *,
    table: str = "metrics",
    column: Sequence[str] | str | None = None,
    colour: str | None = None,
    epoch: int | None = None,
    split: str | None = None,
) -> Answer:
    """Every sample's place in the plane of its embedding.

    Args:
        reader: The run.
        table: The table that holds the embeddings.
        column: Columns of vectors; when None those that were reduced at collection, else all. Vectors of more than two
            dimensions are projected on the two principal components of what is shown.
        colour: The column that colours the points, of the same samples wherever in the table they have it, or a fact;
            the run's own labels for those that have none there. When None the first of label, predicted, loss that
            there is.
        epoch: That epoch; the last one collected when None.
        split: That split; all when None.

    Returns:
        Rows column, split, epoch, sample_id, x, y, colour; and facts, where the table says which sample a row is of.

    Raises:
        XaiError: The run has no such table, column, epoch or split, or no sample shown has that colour.
        UsageError: There is a file of facts, and the table does not say which sample a row is of.
    """
    marked = _table(reader, table, marked=True)
    lazy = marked.drop(BY_ROW)
    schemas = stored_schemas(reader.layout, table)
    kinds = lazy.collect_schema()
    columns = _chosen(column, kinds, schemas)
    identity = _identity(kinds, table)
    lacks = f"known by sample_id, and the rows of table {table!r} say {identity}"
    if reader.facts.files and identity != SAMPLE_ID:
        raise UsageError(f"--facts are {lacks}", hint="leave it out", refused=("facts",))
    places = [name for name in (identity, _EPOCH, _SPLIT) if name in kinds]
    rows = marked.select(BY_ROW, *places, *columns).filter(pl.any_horizontal(pl.col(columns).is_not_null()))
    shown = _at(rows.collect(engine="streaming"), epoch, split)
    called = fact_columns(reader.facts.names, kinds) if identity == SAMPLE_ID else {}
    found = _coloured(reader, lazy, shown, colour, identity, called)
    frame, by = found.frame, found.by
    names = reader.names_of_classes(LABEL) if found.of_run else ()
    if names and not isinstance(schemas.get(LABEL), CategoricalLabel):
        schemas = {**schemas, LABEL: CategoricalLabel(classes=names)}
    data = pl.concat(
        [rows for name in columns for rows in _points(frame, name, identity, by, schemas)], how="vertical_relaxed"
    )
    schema = schemas.get(by or "")
    given = {"facts": reader.facts.given} if reader.facts.given else {}
    taken_back = taken_back_of(reader, table)
    answer = Answer(
        command="embeddings",
        run=reader.layout.described,
        selection={"table": table, "column": columns, "colour": by, "epoch": epoch, "split": split, **given},
        data=data,
        extra={"classes": list(schema.names.values())} if isinstance(schema, CategoricalLabel) else {},
        counts=Counts(
            rows=frame.height,
            non_finite=int((~data["x"].is_finite()).sum()),
            taken_back=sum(taken.rows for taken in taken_back),
            damaged=reader.damaged,
        ),
        warnings=(
            *dict.fromkeys((*reader.faults, *map(str, taken_back), *found.warnings)),
            *told_as(called, f"a column of table {table} has its name"),
        ),
    )
    if identity == SAMPLE_ID:
        keys = [SAMPLE_ID, *([pl.col(_SPLIT).cast(pl.String).fill_null("")] if _SPLIT in frame.columns else [])]
        return with_facts(answer, reader, called=called, by_row=frame.filter(BY_ROW).select(keys).unique())
    if reader.facts.names:
        return replace(answer, warnings=(*answer.warnings, f"facts are {lacks}: none are shown"))
    return answer


@dataclass(frozen=True)
class Vectors:
    """Collected vectors, a sample each.

    Attributes:
        ids: (n,) the samples' ids, or their row numbers where the table was collected without ids.
        vectors: (n, d) float32 as collected, else float64; several columns follow one another.
        columns: Which columns they are from.
        places: Which splits they are of, "" without a name, each with its epoch.
        is_of_any_set: Whether nothing says which data set they are of.
    """

    ids: pl.Series
    vectors: np.ndarray[Any, np.dtype[np.floating]]
    columns: tuple[str, ...]
    places: tuple[tuple[str, int | None], ...]
    is_of_any_set: bool


def kept_vectors(
    reader: Reader,
    *,
    table: str = "metrics",
    column: Sequence[str] | str | None = None,
    split: str | None = None,
    ids: pl.Series | None = None,
    pair: Pair = ("", ""),
    epochs: Sequence[int] | None = None,
) -> Vectors:
    """Every sample's embedding, of one split, as collected last.

    Splits number their samples alike where nobody gives them ids: two are never one list.

    Args:
        reader: The run.
        table: The table that holds the embeddings.
        column: Columns of vectors; when None those that were not reduced at collection, else all.
        split: That split. When None the one called as the data set, else as the mode, else the only one that has any
            of the samples, or several of which no two have the same one.
        ids: The samples they are for; all when None.
        pair: The mode and data set of these.
        epochs: The last of these that has embeddings; the last collected when None. Of a table without epochs all.

    Raises:
        XaiError: The run has no such table, column or split, none of the epochs has an embedding, or several splits
            have the same samples.
    """
    lazy = _table(reader, table)
    schemas = stored_schemas(reader.layout, table)
    kinds = lazy.collect_schema()
    columns = _chosen(column, kinds, schemas, whole=True)
    identity = _identity(kinds, table)
    lazy = lazy.with_columns(
        (pl.col(_SPLIT).cast(pl.String) if _SPLIT in kinds else pl.lit(None, pl.String)).fill_null("").alias(_SPLIT),
        (pl.col(_EPOCH).cast(pl.Int64) if _EPOCH in kinds else pl.lit(None, pl.Int64)).alias(_EPOCH),
    ).filter(pl.all_horizontal(pl.col(identity, *columns).is_not_null()))
    if DS_ID in kinds:
        # Rows that say no data set may be of any.
        lazy = lazy.filter(pl.col(DS_ID).cast(pl.String).is_null() | (pl.col(DS_ID).cast(pl.String) == pair[1]))
    told = lazy.select(pl.col(identity).cast(pl.String), _SPLIT, _EPOCH).unique().collect(engine="streaming")
    places = told.group_by(_SPLIT).agg(pl.col(identity).unique(), pl.col(_EPOCH).unique()).sort(_SPLIT)
    known = places.rows_by_key(_SPLIT, named=True, unique=True)
    if split is not None and split not in known:
        raise unknown("split", split, [name or '""' for name in known], where=f"the embeddings of table {table!r}")
    wanted = None if ids is None else set(ids.cast(pl.String))
    of_split = {
        name: set(place[identity]) if wanted is None else wanted.intersection(place[identity])
        for name, place in known.items()
    }
    splits = [name for name, own in of_split.items() if own] if split is None else [split]
    if split is None and (named := next((name for name in reversed(pair) if name and name in splits), None)):
        splits = [named]
    if len(set().union(*(of_split[name] for name in splits))) < sum(len(of_split[name]) for name in splits):
        called = ", ".join(name or '""' for name in splits)
        raise XaiError(
            f"splits {called} of table {table!r} have embeddings of the same samples, and none is called "
            + " or ".join(name for name in pair if name),
            hint=f"which are meant? xai select {f'--mode {pair[0]} ' if pair[0] else ''}--rule diverse "
            f"--split {splits[-1] or repr('')}; relabel export takes what it wrote: --ids @FILE",
        )
    at = []
    for name in splits:
        there = sorted(epoch for epoch in known[name][_EPOCH] if epoch is not None)
        asked = there if epochs is None else sorted({*there} & {*epochs})
        if asked or not there:
            at.append((name, asked[-1] if asked else None))
    if splits and not at:
        there = sorted({epoch for name in splits for epoch in known[name][_EPOCH] if epoch is not None})
        of = f" of split {', '.join(splits)}" if any(splits) else ""
        raise XaiError(
            f"table {table!r} has no embedding{of} of epoch {', '.join(ranges(sorted(epochs or ())))}",
            hint=f"embeddings were collected at epoch {', '.join(ranges(there))}",
        )
    rows = [(pl.col(_SPLIT) == name) & pl.col(_EPOCH).eq_missing(epoch) for name, epoch in at]
    chosen = lazy.filter(pl.any_horizontal(rows) if rows else pl.lit(False)).select(identity, *columns)
    frame = chosen.collect(engine="streaming").unique(identity, keep="last", maintain_order=True)
    parts = [np.asarray(frame[name].to_numpy()).reshape(frame.height, -1) for name in columns]
    parts = [part if part.dtype == np.float32 else part.astype(np.float64, copy=False) for part in parts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return Vectors(frame[identity], whole, tuple(columns), tuple(at), DS_ID not in kinds and pair[1] not in splits)


def has_embeddings(reader: Reader, table: str) -> bool:
    """Whether there is anything for `embeddings` to show in a table."""
    try:
        kinds = _table(reader, table).collect_schema()
        _identity(kinds, table)
        return bool(_chosen(None, kinds, stored_schemas(reader.layout, table)))
    except XaiError:
        return False


def _table(reader: Reader, table: str, *, marked: bool = False) -> pl.LazyFrame:
    """The rows of a table, as `scan_table` gives them.

    Raises:
        XaiError: There is no such table.
    """
    lazy = scan_table(reader, reader.layout.table_folder(table), marked=marked)
    if lazy is None and not reader.table_folders():
        raise XaiError(
            f"{reader.described} has no tables",
            hint=_COLLECT,
        )
    if lazy is None:
        raise unknown("table", table, reader.table_folders(), where=reader.described)
    kinds = lazy.collect_schema()
    if MODE in kinds:  # rows that somebody added may say their split as rows of samples do
        said = [pl.col(name).cast(pl.String) for name in (_SPLIT, MODE) if name in kinds]
        lazy = lazy.with_columns(pl.coalesce(said).alias(_SPLIT))
    return _with_vectors(lazy, stored_schemas(reader.layout, table))


def _with_vectors(lazy: pl.LazyFrame, schemas: dict[str, Schema]) -> pl.LazyFrame:
    """The rows with what is said to be an embedding as vectors of one length, where lists of numbers are that."""
    lists = {
        name: kind.inner
        for name, kind in lazy.collect_schema().items()
        if isinstance(schemas.get(name), Embedding)
        and isinstance(kind, pl.List | pl.Array)
        and kind.inner.is_numeric()
        and not (isinstance(kind, pl.Array) and kind.inner.is_float())
    }
    if not lists:
        return lazy
    sizes = [pl.col(n).cast(pl.List(inner)).list.len().drop_nulls().unique().implode() for n, inner in lists.items()]
    found = lazy.select(sizes).collect(engine="streaming").row(0, named=True)
    return lazy.with_columns(
        pl.col(name).cast(pl.Array(inner if inner.is_float() else pl.Float64(), found[name][0]))
        for name, inner in lists.items()
        if len(found[name]) == 1
    )


def _identity(kinds: pl.Schema, table: str) -> str:
    """The column that says which sample a row is of."""
    identity = next((name for name in _IDS if name in kinds), None)
    if identity is None:
        raise XaiError(f"the rows of table {table!r} say no sample", hint="collect them with xaicli.collect_metrics")
    return identity


def _points(
    frame: pl.DataFrame, column: str, identity: str, by: str | None, schemas: dict[str, Schema]
) -> Iterator[pl.DataFrame]:
    """One column's points, a frame for each split and epoch."""
    groups = [name for name in (_SPLIT, _EPOCH) if name in frame.columns]
    present = frame.drop_nulls(column)
    plane = _plane(present[column])
    placed = present.with_columns(pl.Series(_X, plane[:, 0]), pl.Series(_Y, plane[:, 1]))
    for key, rows in placed.group_by(groups, maintain_order=True) if groups else [((), placed)]:
        at = dict(zip(groups, key, strict=True))
        yield rows.select(
            column=pl.lit(column),
            split=pl.lit(str(at.get(_SPLIT) or "")),
            epoch=pl.lit(at.get(_EPOCH), pl.Int64),
            sample_id=pl.col(identity),
            x=pl.col(_X),
            y=pl.col(_Y),
            colour=_named(rows, by, schemas),
        )


def _plane(vectors: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, 2): the vectors themselves, or their two principal components; NaN where one is not finite."""
    values = np.asarray(vectors.to_numpy(), np.float64).reshape(len(vectors), -1)
    if values.shape[1] == _SMALLEST or not len(values):
        return values.reshape(len(values), _SMALLEST)
    finite = np.isfinite(values).all(axis=1)
    plane = np.full((len(values), _SMALLEST), np.nan)
    if finite.any():
        pca = PCA(_SMALLEST)
        pca.fit(values[finite].astype(np.float32))
        reduced = pca.transform(values[finite].astype(np.float32))
        plane[finite] = 0.0
        plane[np.flatnonzero(finite)[:, None], np.arange(reduced.shape[1])] = reduced
    return plane


def _named(rows: pl.DataFrame, by: str | None, schemas: dict[str, Schema]) -> pl.Expr:
    """The colour's column: class names where the values stand for classes."""
    if by is None:
        return pl.lit(None, pl.String)
    schema = schemas.get(by)
    if isinstance(schema, CategoricalLabel) or rows[by].dtype.is_integer() or rows[by].dtype == pl.Boolean:
        shown = schema or Schema()
        return pl.col(by).map_elements(shown.show, return_dtype=pl.String)
    return pl.col(by)


def _chosen(
    column: Sequence[str] | str | None, kinds: pl.Schema, schemas: dict[str, Schema], *, whole: bool = False
) -> list[str]:
    """The columns of vectors: those named, else those reduced at collection, or with `whole` those that were not."""
    vectors = [
        name
        for name, kind in kinds.items()
        if isinstance(kind, pl.Array) and kind.inner.is_float() and kind.size >= _SMALLEST
    ]
    if column is not None:
        wanted = [column] if isinstance(column, str) else list(column)
        if not wanted:
            raise UsageError("column names no column", hint=f"leave it out, or choose from: {', '.join(vectors)}")
        for name in wanted:
            if name not in vectors:
                raise unknown("embedding column", name, vectors)
        return wanted
    stated = {name: schema for name in vectors if isinstance(schema := schemas.get(name), Embedding)}
    found = [name for name, schema in stated.items() if bool(schema.reduction) != whole] or list(stated) or vectors
    if not found:
        uneven = [name for name in kinds if isinstance(schemas.get(name), Embedding)]
        said = f": the vectors of {', '.join(uneven)} are not of one length from {_SMALLEST} on" if uneven else ""
        raise XaiError(f"the table holds no embeddings{said}", hint=_COLLECT)
    return found


@dataclass(frozen=True)
class _Coloured:
    """The samples shown with the column that colours them.

    Attributes:
        frame: The samples.
        by: Which column it is; None for none.
        of_run: Whether the run told some of its values, and not the table.
        warnings: What to say of those that have none.
    """

    frame: pl.DataFrame
    by: str | None
    of_run: bool = False
    warnings: tuple[str, ...] = ()


def _coloured(
    reader: Reader,
    lazy: pl.LazyFrame,
    shown: pl.DataFrame,
    colour: str | None,
    identity: str,
    called: Mapping[str, str],
) -> _Coloured:
    """The samples shown with the column that colours them, which one it is, and what to say of it.

    A table is collected in one pass or in several, each with columns of its own: a colour is the sample's, in whichever
    of the rows it stands. A label that no row tells is the one the run recorded.

    Raises:
        XaiError: There is no such column, or none of the samples has a value there.
    """
    kinds = lazy.collect_schema()
    if colour is not None and colour not in kinds and colour != LABEL:
        if fact := next((name for name, new in called.items() if new == colour), None):
            return _of_facts(reader, shown, fact, colour)
        offered, note = [*kinds, *called.values()], reader.facts.left_out
        raise unknown("column or fact", colour, offered, plural="columns and facts", where="the table", note=note)
    for name in _COLOURS if colour is None else (colour,):
        told = _of_table(lazy, shown, name, identity) if name in kinds else shown.with_columns(pl.lit(None).alias(name))
        found, conflicts = told, 0
        if name == LABEL and identity == SAMPLE_ID and told[LABEL].null_count():
            found, conflicts = _of_run(reader, told)
        if n := found[name].count():
            said = []
            if conflicts:
                have = "1 sample has" if conflicts == 1 else f"{conflicts:,} samples have"
                said.append(f"{have} another label in another mode or data set, and no colour")
            if (lacking := found.height - n - conflicts) > 0:
                have = "has" if lacking == 1 else "have"
                said.append(f"{lacking:,} of {found.height:,} samples shown {have} no {name}, and no colour")
            return _Coloured(found, name, n > told[name].count(), tuple(said))
    if colour is None or shown.is_empty():
        return _Coloured(shown if colour is None else shown.with_columns(pl.lit(None).alias(colour)), colour)
    if colour not in kinds:
        raise unknown("column", colour, kinds, where="the table", note="nor has the run labels of its samples")
    at = f" of epoch {shown[_EPOCH][0]}" if _EPOCH in shown.columns and shown[_EPOCH][0] is not None else ""
    raise XaiError(
        f"no embedding{at} is of a sample that has {colour} there",
        hint="collect both for the same data and epoch: xai collect ... --collectors classification,embeddings",
    )


def _of_facts(reader: Reader, shown: pl.DataFrame, fact: str, colour: str) -> _Coloured:
    """The samples shown with a fact as a column, a group each value; numbers of more than ten values as such."""
    ids = reader.facts.frame.schema[SAMPLE_ID]
    if shown.schema[SAMPLE_ID].is_integer() != ids.is_integer():
        known = pl.Series([None] * shown.height, dtype=pl.String)
    else:
        own = shown.select(pl.when(~pl.col(BY_ROW)).then(SAMPLE_ID))[SAMPLE_ID]  # what has an id, and not its row alone
        known = reader.facts.of(own.cast(ids))[fact]
        if known.dtype.is_temporal():
            known = known.cast(pl.String)
        elif known.dtype.is_integer() and known.drop_nulls().n_unique() > _GROUPS:
            known = known.cast(pl.Float64)
    lacking = known.null_count()
    have = "has" if lacking == 1 else "have"
    said = f"{lacking:,} of {shown.height:,} samples shown {have} no {colour}, and no colour"
    return _Coloured(shown.with_columns(known.alias(colour)), colour, warnings=(said,) if lacking else ())


def _of_table(lazy: pl.LazyFrame, shown: pl.DataFrame, colour: str, identity: str) -> pl.DataFrame:
    """The samples shown with the last value that rows of their epoch and split have; a label of any epoch will do."""
    kind = lazy.collect_schema()[colour]
    if not (kind.is_numeric() or kind in (pl.String, pl.Boolean)):
        raise UsageError(f"column {colour!r} is {kind}, which is no colour", hint="a number, label or text")
    fixed = colour in (LABEL, "labels")
    keys = [name for name in (identity, _SPLIT, *(() if fixed else (_EPOCH,))) if name in shown.columns]
    if colour in shown.columns:
        return shown
    known = lazy.select(*keys, colour).filter(pl.col(colour).is_not_null()).collect(engine="streaming")
    known = known.unique(keys, keep="last", maintain_order=True)
    return shown.join(known, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _of_run(reader: Reader, shown: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The samples shown, those without a label with that which the run recorded last; how many of them have several."""
    kind, own = reader.dtypes.get(LABEL), shown[LABEL].dtype
    if kind is None or not (kind.is_numeric() or kind in (pl.String, pl.Boolean)):
        return shown, 0
    if own not in (pl.Null, kind) and not (own.is_integer() and kind.is_integer()):
        return shown, 0
    lacking = pl.col(LABEL).is_null() & ~pl.col(BY_ROW)
    wanted = shown.filter(lacking)[SAMPLE_ID].unique()
    if reader.dtypes[SAMPLE_ID].is_integer() != wanted.dtype.is_integer():
        return shown, 0
    found = []
    for mode in reader.modes():
        for ds_id in reader.ds_ids(mode):
            left = wanted
            for epoch in reversed(reader.epochs(mode, ds_id)):
                rows, _ = reader.frame(Place(mode, ds_id, epoch), [SAMPLE_ID, LABEL])
                rows = rows.select(SAMPLE_ID, LABEL).filter(pl.col(SAMPLE_ID).is_in(left.implode()))
                found.append(rows.drop_nulls())
                left = left.filter(~left.is_in(found[-1][SAMPLE_ID].implode()))
                if left.is_empty():
                    break
    if not found:
        return shown, 0
    told = pl.concat(found).group_by(SAMPLE_ID).agg(pl.col(LABEL).unique().alias("told"))
    joined = shown.join(told, on=SAMPLE_ID, how="left", maintain_order="left")
    alone = pl.when(lacking & (pl.col("told").list.len() == 1)).then(pl.col("told").list.first())
    several = joined.filter(lacking & (pl.col("told").list.len() > 1)).height
    return joined.with_columns(pl.coalesce(LABEL, alone)).drop("told"), several


def _at(frame: pl.DataFrame, epoch: int | None, split: str | None) -> pl.DataFrame:
    """The rows of a split and an epoch, of each sample the last one collected."""
    if split is not None:
        splits = frame[_SPLIT].fill_null("").unique().to_list() if _SPLIT in frame.columns else []
        if split not in splits:
            raise unknown("split", split, sorted(str(name) or '""' for name in splits), where="the table")
        frame = frame.filter(pl.col(_SPLIT).fill_null("") == split)
    if _EPOCH in frame.columns:
        epochs = frame[_EPOCH].drop_nulls()
        chosen = epoch if epoch is not None else epochs.max()
        if epoch is not None and epoch not in epochs:
            raise unknown("epoch", epoch, sorted(epochs.unique()), where="the table")
        frame = frame if chosen is None else frame.filter(pl.col(_EPOCH) == chosen)
    elif epoch is not None:
        raise UsageError("the table has no epochs", hint="leave --epoch out", refused=("epoch",))
    keys = [name for name in (*_IDS, _EPOCH, _SPLIT) if name in frame.columns]
    return frame.unique(keys, keep="last", maintain_order=True)
