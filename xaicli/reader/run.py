"""The reader of one run: its rows, verified, none that were taken back, each sample once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError, UsageError
from xaicli.layout import RunLayout
from xaicli.progress import doing
from xaicli.reader.facts import FactFiles, Facts, each_file
from xaicli.reader.holdings import Holdings
from xaicli.reader.lazy import scan
from xaicli.reader.pages import Footer, read_footer, step_range
from xaicli.reader.pieces import Piece, Place, relative
from xaicli.reader.rows import (
    PLACED,
    STARTS,
    Tally,
    Where,
    conform,
    count_duplicates,
    finite,
    refuse_duplicates,
    that_count,
)
from xaicli.vocabulary import (
    ATTEMPT,
    DS_ID,
    EPOCH,
    LABEL,
    MODE,
    PASS,
    PREDICTION,
    RANK,
    SAMPLE_ID,
    STEP,
    Attempts,
    Duplicates,
)

_TRIES = 5


def open_reader(
    layout: RunLayout,
    *,
    strict: bool = False,
    attempts: str = Attempts.LAST,
    where: str | None = None,
    facts: FactFiles = None,
    no_facts: bool = False,
) -> Reader:
    """Open a run for reading.

    Args:
        layout: The run.
        strict: Raise on a damaged file instead of leaving it out.
        attempts: `last` leaves out what later attempts took back of earlier ones, `all` leaves out nothing.
        where: A condition that rows meet, as SQL; other rows are as if they were not there.
        facts: Files of facts beside those recorded: CSV, Parquet or JSON lines with `sample_id`.
        no_facts: Know no facts.

    Raises:
        XaiError: The folder is no run or of a newer format version, or the file of facts cannot be read.
        UsageError: The condition is none, or there are facts and none are wanted.
    """
    return Reader(layout, strict=strict, attempts=attempts, where=where, facts=facts, no_facts=no_facts)


class Rows(NamedTuple):
    """The rows of one place.

    Attributes:
        place: Whose rows they are; its pass is told.
        step: The largest step logged there.
        frame: The columns asked for.
        tally: What was counted.
    """

    place: Place
    step: int | None
    frame: pl.DataFrame
    tally: Tally

    @property
    def times(self) -> list[pl.Expr]:
        """Its epoch, pass and step as columns."""
        place = self.place
        return [
            pl.lit(place.epoch, pl.Int32).alias(EPOCH),
            pl.lit(place.turn, pl.Int16).alias(PASS),
            pl.lit(self.step, pl.Int64).alias(STEP),
        ]


def _items(column: pl.Series) -> set[Any]:
    """What a column holds, of sets their items."""
    while isinstance(column.dtype, pl.List):
        column = column.explode()
    return set(column.drop_nulls().unique())


def _counting(duplicates: Duplicates) -> Duplicates:
    """Which rows count while a selection is made: duplicates are refused by the question itself."""
    return Duplicates.ALL if duplicates is Duplicates.ALL else Duplicates.LAST


class Reader(Holdings):
    """One run and its rows.

    Damaged files are left out and named in `damaged` as they are met; with `strict` they raise `DamagedFileError`.
    """

    def __init__(
        self,
        layout: RunLayout,
        *,
        strict: bool = False,
        attempts: str = Attempts.LAST,
        where: str | None = None,
        facts: FactFiles = None,
        no_facts: bool = False,
    ) -> None:
        if no_facts and each_file(facts):
            raise UsageError(
                "--facts and --no-facts exclude one another",
                hint="leave one of them out",
                refused=("no_facts",),
                by=("facts",),
            )
        self._footers: dict[Path, Footer] = {}
        self._classes: dict[str, tuple[frozenset[Any], frozenset[Any]]] = {}
        super().__init__(layout, strict=strict, attempts=attempts)
        self.facts = Facts(self, facts, wanted=not no_facts)
        self.where: Where | None = None
        self.keep(where)

    def keep(self, where: str | None) -> None:
        """Tell from now on of those rows alone that meet a condition; of all when None.

        Raises:
            UsageError: It is none.
        """
        self.where = None if where is None else self._condition(where)

    def limited(self, where: str | None) -> Reader:
        """The same run as it was listed, with another condition that rows meet; None for none.

        Raises:
            UsageError: The condition is none.
        """
        other = copy(self)
        other.keep(where)
        return other

    def _condition(self, text: str) -> Where:
        try:
            return Where.of(text, {**self.dtypes, **STARTS}, self.label_names, self._some_fact)
        except UsageError as error:
            if not (why := self.facts.left_out):
                raise
            raise UsageError(error.message, hint=f"{why}; {error.hint}") from None

    def _some_fact(self, name: str) -> Any:
        """A value of a fact; None of what is none, or has none."""
        if name not in self.facts.dtypes:
            return None
        known = self.facts.frame[name].drop_nulls()
        return known[0] if len(known) else None

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Every column that a question can name, with its type: those of the rows, and the facts of their samples."""
        return {**self.stored, **self.facts.dtypes}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What everyone who asks this run anything should know."""
        return (*super().warnings, *self.facts.notices)

    @property
    def described(self) -> str:
        """What the run is called in a message."""
        return self.layout.described

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of labels 0, 1, 2, ..."""
        return self.manifest.label_names or ()

    def names_of_classes(self, column: str) -> tuple[str, ...]:
        """What the numbers 0, 1, 2, ... in a column are called; nothing where these are no classes.

        The labels of a run that recorded none are what its predictions are, and without these what it has names of.
        """
        if column == LABEL and self.dtypes.keys().isdisjoint((LABEL, PREDICTION)):
            return self.label_names
        dtype = self.dtypes.get(PREDICTION if column == LABEL and LABEL not in self.dtypes else column)
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        codes = column in (LABEL, PREDICTION) and isinstance(inner, pl.DataType) and inner.is_integer()
        return self.label_names if codes else ()

    def place_frames(
        self,
        mode: str,
        ds_id: str,
        columns: Sequence[str],
        epochs: Sequence[int] | None = None,
        *,
        backwards: bool = False,
        duplicates: Duplicates = Duplicates.LAST,
        tally: Tally | None = None,
        tallies: dict[int, Tally] | None = None,
        keep_non_finite: bool = False,
    ) -> Iterator[Rows]:
        """The rows place by place: every byte verified, what was taken back dropped, duplicates resolved.

        Memory is bounded by two epochs: the next is read while the caller works on one. Non-finite metric values are
        null, so no statistic sees them; `tally` counts them.

        Args:
            columns: The columns of each frame, in this order; one that an epoch's files lack is null.
            epochs: Which epochs, ascending; all when None.
            backwards: The last place first.
            tally: What counts rows, non-finite values and duplicates.
            tallies: The same, for each epoch apart.
            keep_non_finite: Leave NaN and infinities as they are stored.

        Yields:
            Each pass of each epoch that has rows, in the order they were walked in.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict.
            XaiError: There are duplicates and `duplicates` is `error`.
        """
        wanted = list(self.epochs(mode, ds_id) if epochs is None else epochs)[:: -1 if backwards else 1]
        with ThreadPoolExecutor(1) as ahead:

            def read(epoch: int) -> Future[list[Rows]]:
                place = Place(mode, ds_id, epoch)
                return ahead.submit(self.of_epoch, place, columns, duplicates, keep_non_finite=keep_non_finite)

            reading = [read(epoch) for epoch in wanted[:1]]
            for number, epoch in enumerate(wanted):
                doing(f"reading {mode} epochs", number + 1, len(wanted))
                found = reading.pop().result()
                reading += [read(later) for later in wanted[number + 1 : number + 2]]
                counted = Tally()
                for rows in found:
                    counted.add(rows.tally)
                if tally is not None:
                    tally.add(counted)
                if tallies is not None:
                    tallies[epoch] = counted
                while found:
                    rows = found.pop(-1 if backwards else 0)
                    if rows.frame.height:
                        yield rows
                    del rows

    def of_epoch(
        self,
        place: Place,
        columns: Sequence[str],
        duplicates: Duplicates = Duplicates.LAST,
        *,
        keep_non_finite: bool = False,
    ) -> list[Rows]:
        """The rows of an epoch as `place_frames` gives them: one for each pass, in order."""
        for _ in range(_TRIES):
            try:
                turns = self.turns(place)
                if len(turns) < 2:
                    whole = place._replace(turn=min(turns, default=0))
                    return self._one_pass(whole, columns, duplicates, keep_non_finite)
                return self._passes(place, columns, duplicates, keep_non_finite)
            except FileNotFoundError:
                # A compaction has replaced the file since it was listed.
                self.refresh()
        raise DamagedFileError(f"files of {place} keep vanishing while they are read", hint="try again")

    def frame(
        self,
        place: Place,
        columns: Sequence[str],
        duplicates: Duplicates = Duplicates.LAST,
        *,
        keep_non_finite: bool = False,
    ) -> tuple[pl.DataFrame, Tally]:
        """The rows of one place, of the last pass with rows where it names none, and what was counted.

        As in `place_frames`.
        """
        found = self.of_epoch(place, columns, duplicates, keep_non_finite=keep_non_finite)
        if place.turn is not None:
            found = [rows for rows in found if rows.place.turn == place.turn]
        elif self.where:
            found = [rows for rows in found if rows.frame.height] or found[-1:]
        if found:
            return found[-1].frame, found[-1].tally
        return pl.DataFrame(schema={name: self.dtypes.get(name, pl.Null()) for name in columns}), Tally()

    def sample_ids(self) -> pl.Series:
        """The id of every sample that has a row, once each, in no order: of every epoch, whatever `where` selects.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict, or files keep vanishing.
        """
        for _ in range(_TRIES):
            try:
                found = pl.Series(SAMPLE_ID, dtype=self.dtypes.get(SAMPLE_ID, pl.Int64()))
                for mode in self.modes():
                    for place in (
                        Place(mode, ds, epoch) for ds in self.ds_ids(mode) for epoch in self.epochs(mode, ds)
                    ):
                        ids = self._concatenated(self.pieces(place), [SAMPLE_ID])[SAMPLE_ID]
                        if not ids.equals(found):
                            found = pl.concat([found, ids]).unique(maintain_order=True)
                return found
            except FileNotFoundError:
                self.refresh()
        raise DamagedFileError("files keep vanishing while the ids are read", hint="try again")

    def ids_among(self, pair: tuple[str, str], wanted: Collection[Any]) -> set[Any]:
        """Those of some ids that have a row in a (mode, ds_id), of any epoch, whatever `where` selects.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict, or files keep vanishing.
        """
        for _ in range(_TRIES):
            try:
                found: set[Any] = set()
                for epoch in reversed(self.epochs(*pair)):  # mostly the last has them all
                    ids = self._concatenated(self.pieces(Place(*pair, epoch)), [SAMPLE_ID])[SAMPLE_ID]
                    found |= {*ids.filter(ids.is_in([*wanted]))}
                    if len(found) == len({*wanted}):
                        break
                return found
            except FileNotFoundError:
                self.refresh()
        raise DamagedFileError("files keep vanishing while the ids are read", hint="try again")

    def names_elsewhere(self, option: str) -> Collection[str]:
        """What an option may name in other questions about the run, by the option's name in Python."""
        if option == MODE:
            return self.modes()
        return {ds_id for mode in self.modes() for ds_id in self.ds_ids(mode)} if option == DS_ID else ()

    def words_of_epochs(self) -> list[str]:
        """The epochs that rows of any mode and data set have."""
        return [str(epoch) for epoch in sorted({place.epoch for place in self.folders()})]

    def epochs_met(
        self, pair: tuple[str, str], epochs: Sequence[int], duplicates: Duplicates = Duplicates.LAST
    ) -> tuple[int, ...]:
        """The epochs of a (mode, ds_id), ascending, that `where` leaves: those it names itself, where it names no more.

        Else those up to the last with a row that counts and meets it, from the first such on where it is about epochs,
        too.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict, or files keep vanishing.
        """
        columns = self.where.columns if self.where else ()
        if self.where and PLACED.keys() >= {*columns}:
            one = pl.LazyFrame({SAMPLE_ID: [0]})
            return tuple(e for e in epochs if self.where.lazily(one, Place(*pair, e)).collect().height)
        kept = list(epochs)
        while kept and not self._any_row(Place(*pair, kept[-1]), duplicates):
            kept.pop()
        while kept and EPOCH in columns and not self._any_row(Place(*pair, kept[0]), duplicates):
            del kept[0]
        return tuple(kept)

    def _any_row(self, place: Place, duplicates: Duplicates) -> bool:
        """Whether an epoch has a row that counts and meets `where`."""
        return any(rows.frame.height for rows in self.of_epoch(place, [SAMPLE_ID], _counting(duplicates)))

    def values(
        self,
        column: str,
        epochs: Mapping[tuple[str, str], Sequence[int]] | None = None,
        *,
        wanted: Collection[Any] = (),
        duplicates: Duplicates = Duplicates.LAST,
    ) -> set[Any]:
        """What a column holds, of sets their items: in the rows selected, or in all rows, whatever `where` leaves out.

        Args:
            column: The column.
            epochs: The epochs of each (mode, ds_id) that are selected; None for all rows.
            wanted: What is looked for; reading ends where all of it is found. Empty for all values.
            duplicates: Which rows of one sample count among those selected.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict, or files keep vanishing.
        """
        counting = None if epochs is None else _counting(duplicates)
        if epochs is None:
            places = list(self.folders())
        else:
            places = [Place(*pair, epoch) for pair, chosen in epochs.items() for epoch in chosen]
        found: set[Any] = set()
        # What is wanted is mostly found in the last epoch.
        for place in sorted(places, key=lambda place: -place.epoch):
            for frame in self._of_column(place, column, counting):
                found |= _items(frame[column])
            if wanted and found.issuperset(wanted):
                break
        return found

    def classes_in(self, column: str) -> tuple[frozenset[Any], frozenset[Any]]:
        """What a column holds, of sets their items: the classes of the run in it, and all else.

        A class is what labels and predictions of any row are, and what has a name. What a file of facts says of other
        samples than the run's is nothing else.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict, or files keep vanishing.
        """
        if column not in self._classes:
            is_fact = column in self.facts.dtypes
            held = _items(self.facts.frame[column]) if is_fact else self.values(column)
            others = held.difference(self.label_names, range(len(self.label_names)))
            for name in (LABEL, PREDICTION):
                if others and name in self.stored:
                    others -= self.values(name, wanted=others)
            if others and is_fact:
                own = pl.col(SAMPLE_ID).is_in(self.sample_ids().implode())
                others &= _items(self.facts.frame.filter(own)[column])
            self._classes[column] = frozenset(held - others), frozenset(others)
        return self._classes[column]

    def _of_column(self, place: Place, column: str, counting: Duplicates | None) -> list[pl.DataFrame]:
        """A column of an epoch's rows: of those that count and meet the condition, or of all."""
        if counting:
            return [rows.frame for rows in self.of_epoch(place, [column], counting)]
        for _ in range(_TRIES):
            try:
                return [self._concatenated(self.pieces(place), [column])]
            except FileNotFoundError:
                self.refresh()
        raise DamagedFileError(f"files of {place} keep vanishing while they are read", hint="try again")

    def _one_pass(
        self, place: Place, columns: Sequence[str], duplicates: Duplicates, keep_non_finite: bool
    ) -> list[Rows]:
        """The rows of an epoch that was walked once."""
        pieces, needed = self.pieces(place), self._needed(columns)
        alone = len(pieces) == 1
        frame = self._concatenated(
            pieces,
            needed if SAMPLE_ID in needed else [*needed, SAMPLE_ID],
            spare_ids=alone and SAMPLE_ID not in needed,
        )
        tally = Tally()
        if not (alone and self._ids_are_unique(pieces[0])):
            tally.duplicates = count_duplicates(frame[SAMPLE_ID])
        if tally.duplicates:
            refuse_duplicates(frame[SAMPLE_ID], duplicates, place, self.described)
            needed = list(dict.fromkeys([*needed, SAMPLE_ID, ATTEMPT, STEP, RANK]))
            frame = that_count(self._concatenated(pieces, needed), duplicates)
        asked = self._asked(place, frame, columns, tally, keep_non_finite, sound=self._all_finite(place))
        return [Rows(place, self.last_step(place), asked, tally)]

    def _passes(
        self, place: Place, columns: Sequence[str], duplicates: Duplicates, keep_non_finite: bool
    ) -> list[Rows]:
        """The rows of an epoch that was walked several times, read once."""
        needed = list(dict.fromkeys([*self._needed(columns), SAMPLE_ID, PASS, ATTEMPT, STEP, RANK]))
        every = self._concatenated(self.pieces(place), needed)
        found = []
        for turn in every[PASS].unique().sort().to_list():
            frame = every.filter(pl.col(PASS) == turn)
            at = place._replace(turn=turn)
            step = frame[STEP].max()
            tally = Tally(duplicates=count_duplicates(frame[SAMPLE_ID]))
            if tally.duplicates:
                refuse_duplicates(frame[SAMPLE_ID], duplicates, at, self.described)
                frame = that_count(frame, duplicates)
            asked = self._asked(at, frame, columns, tally, keep_non_finite)
            found.append(Rows(at, int(step), asked, tally))  # type: ignore[arg-type]
        return found

    def _needed(self, columns: Sequence[str]) -> list[str]:
        """The columns wanted, and those of the condition."""
        return list(dict.fromkeys([*(self.where.stored if self.where else []), *columns]))

    def _asked(
        self,
        place: Place,
        frame: pl.DataFrame,
        columns: Sequence[str],
        tally: Tally,
        keep_non_finite: bool,
        *,
        sound: bool = False,
    ) -> pl.DataFrame:
        """The columns of the rows that are asked about, counted; `sound`: every value is known to be finite."""
        if self.where:
            frame = self.where.rows(frame, place)
        tally.rows = frame.height
        frame = frame if frame.columns == list(columns) else frame.select(columns)
        if sound:
            return frame
        cleaned, tally.non_finite = finite(frame, self.metrics)
        return frame if keep_non_finite else cleaned

    def turns(self, place: Place) -> tuple[int, ...]:
        """The passes of an epoch that may have rows, ascending: as footers say, where nothing was taken back."""
        found: set[int] = set()
        for piece in self.pieces(place):
            if piece.live is not None:
                names = piece.live.column_names
                found |= set(piece.live.column(PASS).unique().to_pylist()) if PASS in names else {0}
            elif footer := self._footer(piece):
                found |= set(footer.passes)
        return tuple(sorted(found))

    def _all_finite(self, place: Place) -> bool:
        """Whether the footers of the files that have been read say that every metric value is finite."""
        footers = [self._footers.get(piece.file.path) if piece.file else None for piece in self.pieces(place)]
        return all(
            footer and footer.non_finite is not None and not any(footer.non_finite.values()) for footer in footers
        )

    def _ids_are_unique(self, piece: Piece) -> bool:
        """Whether the footer of a file that has been read says that no sample repeats in it."""
        footer = self._footers.get(piece.file.path) if piece.file else None
        return footer is not None and footer.sorted_ids is not None

    def _concatenated(
        self, pieces: Sequence[Piece], columns: Sequence[str], *, spare_ids: bool = False
    ) -> pl.DataFrame:
        """The rows of some pieces that count, in the order of the pieces."""
        read = (self.read(piece, columns, spare_ids=spare_ids) for piece in pieces)
        frames = [frame for frame in read if frame is not None]
        if not frames:
            return pl.DataFrame(schema={name: self.dtypes.get(name, pl.Null()) for name in columns})
        # Concatenating one frame would copy it.
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")

    def read(self, piece: Piece, columns: Sequence[str], *, spare_ids: bool = False) -> pl.DataFrame | None:
        """The rows of one piece that count, verified; None if its file is damaged, which is noted.

        Args:
            columns: The columns wanted; absent ones are null.
            spare_ids: Leave out `sample_id`, if it is the last column, where no sample repeats: it is wanted only to
                find duplicates.

        Raises:
            FileNotFoundError: The file has vanished.
            DamagedFileError: It is damaged and the reader is strict.
        """
        if facts := [name for name in columns if name in self.facts.dtypes]:
            own = [name for name in dict.fromkeys([*columns, SAMPLE_ID]) if name not in facts]
            rows = self.read(piece, own)
            return None if rows is None else self.facts.joined(rows, facts).select(columns)
        wanted = list(dict.fromkeys([*columns, *([] if piece.fence is None else [STEP])]))
        known = self._known(piece)
        stored = [name for name in wanted if name not in known]
        if piece.live is not None:
            table = piece.live.select([name for name in stored if name in piece.live.column_names])
        else:
            assert piece.file is not None
            path = relative(self.layout, piece.file)
            if path in self._damaged:  # wherever in it that is: what is called left out counts in no answer
                return None
            try:
                with self.opened(piece.file.path) as file:
                    if (footer := self._footers.get(piece.file.path)) is None:
                        footer = self._footers[piece.file.path] = Footer.of(file.metadata)
                    if spare_ids and footer.sorted_ids and columns[-1] == SAMPLE_ID and len(columns) > 1:
                        columns = columns[:-1]
                        stored.remove(SAMPLE_ID)
                    table = parquet.decoded(file, stored)
            except DamagedFileError as error:
                self.note(error, path)
                return None
        # Where the file has none of the columns, their nulls still need a height.
        frame = pl.DataFrame(pl.from_arrow(table)) if table.num_columns else pl.DataFrame({"": [None] * table.num_rows})
        if piece.fence is not None:
            frame = frame.filter(pl.col(STEP) < piece.fence)
        if constant := [pl.lit(value, dtype).alias(n) for n, (value, dtype) in known.items() if n in wanted]:
            frame = frame.with_columns(constant)
        frame = conform(frame, columns, self.dtypes)
        return frame.with_columns(pl.col(PASS).fill_null(0)) if PASS in columns and PASS not in known else frame

    def _known(self, piece: Piece) -> dict[str, tuple[str | int, type[pl.DataType]]]:
        """The columns that are the same in every row of a piece, and need not be read: each value with its type."""
        attempt, rank, _ = piece.order
        known: dict[str, tuple[str | int, type[pl.DataType]]] = {
            MODE: (piece.place.mode, pl.String),
            DS_ID: (piece.place.ds_id, pl.String),
            EPOCH: (piece.place.epoch, pl.Int32),
            ATTEMPT: (attempt, pl.Int16),
            RANK: (rank, pl.Int16),
        }
        footer = self._footers.get(piece.file.path) if piece.file else None
        if footer and len(footer.passes) == 1:
            known[PASS] = (footer.passes[0], pl.Int16)
        return known

    def last_step(self, place: Place) -> int | None:
        """The largest step logged in the epoch of a place, from the footers where they tell; None without rows."""
        return max((found[1] for piece in self.pieces(place) if (found := self._steps(piece))), default=None)

    def row_count(self, place: Place) -> int:
        """How many rows of the epoch of a place count, duplicates included, from the footers where they tell."""
        return sum(self._count(piece) for piece in self.pieces(place))

    def duplicate_count(self, place: Place) -> int:
        """How many rows of the epoch of a place repeat a sample of their pass; ids are read where no footer tells."""
        pieces = self.pieces(place)
        if len(pieces) == 1 and pieces[0].file and (footer := self._footer(pieces[0])) and footer.sorted_ids:
            return 0
        return sum(rows.tally.duplicates for rows in self.of_epoch(place, [SAMPLE_ID], Duplicates.ALL))

    def non_finite_count(self, place: Place) -> int:
        """How many metric values of the epoch of a place are NaN or infinite; values are read where no footer tells."""
        pieces = self.pieces(place)
        footers = [self._footer(piece) if piece.file else None for piece in pieces]
        known = [footer.non_finite for footer in footers if footer and footer.non_finite is not None]
        if len(known) == len(pieces) and not any(n for one in known for n in one.values()):
            return 0
        (alone, *more) = footers
        if not more and known and alone and alone.sorted_ids and pieces[0].fence is None and self.where is None:
            return sum(known[0].get(metric, 0) for metric in self.metrics)
        return sum(rows.tally.non_finite for rows in self.of_epoch(place, [SAMPLE_ID, *self.metrics]))

    def _steps(self, piece: Piece) -> tuple[int, int] | None:
        if piece.fence is not None:
            frame = self.read(piece, [STEP])
            return None if frame is None or frame.is_empty() else frame.select(pl.min(STEP), max=pl.max(STEP)).row(0)
        if piece.live is not None:
            return step_range(piece.live)
        footer = self._footer(piece)
        return footer.steps if footer else None

    def _count(self, piece: Piece) -> int:
        if piece.fence is not None:
            frame = self.read(piece, [STEP])
            return 0 if frame is None else frame.height
        if piece.live is not None:
            return int(piece.live.num_rows)
        footer = self._footer(piece)
        return footer.rows if footer else 0

    def _footer(self, piece: Piece) -> Footer | None:
        """A file's footer; None where it is damaged, which is noted, or has vanished."""
        assert piece.file is not None
        path = relative(self.layout, piece.file)
        if path in self._damaged:
            return None
        known = self._footers.get(piece.file.path)
        if known and (known.steps or not known.rows):
            return known
        try:
            footer = read_footer(piece.file.path, self.records.get(path), self.contents)
        except DamagedFileError as error:
            self.note(error, path)
            return None
        except FileNotFoundError:
            return None
        self._footers[piece.file.path] = footer
        return footer

    def scan(
        self,
        mode: str,
        ds_id: str,
        epochs: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """The rows of one (mode, ds_id), lazily: verified whole files, none taken back, live rows included.

        Duplicates and non-finite values are untouched.

        Args:
            epochs: All when None.
            columns: All when None.
        """
        wanted = self.epochs(mode, ds_id) if epochs is None else epochs
        kept = list(columns or self.dtypes)
        places = [Place(mode, ds_id, epoch) for epoch in wanted]
        named = [*kept, *(self.where.stored if self.where else [])]
        if facts := [name for name in dict.fromkeys(named) if name in self.facts.dtypes]:
            return self._scan_with(facts, places, kept)
        if self.where is None:
            return scan(self, places, kept)
        read = list(dict.fromkeys([*kept, *self.where.stored]))
        of_epochs = [(scan(self, [place], read), place) for place in places]
        return pl.concat([self.where.lazily(lazy, place).select(kept) for lazy, place in of_epochs])

    def _scan_with(self, facts: Sequence[str], places: Sequence[Place], columns: Sequence[str]) -> pl.LazyFrame:
        """The same with facts among the columns, or in the condition."""
        condition = self.where.stored if self.where else []
        own = [name for name in dict.fromkeys([*columns, *condition, SAMPLE_ID]) if name not in facts]
        known = self.facts.frame.select(SAMPLE_ID, *facts).lazy()
        found = []
        for place in places:
            lazy = scan(self, [place], own).join(known, on=SAMPLE_ID, how="left", maintain_order="left")
            found.append((self.where.lazily(lazy, place) if self.where else lazy).select(columns))
        return pl.concat(found) if found else pl.LazyFrame(schema={name: self.dtypes[name] for name in columns})
