"""The reader of one run: its rows, verified, fenced, each sample once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.layout import RunLayout
from xaicli.reader import duplicates as duplicate_rows
from xaicli.reader.footers import Footer, read_footer, step_range
from xaicli.reader.holdings import Holdings
from xaicli.reader.lazy import scan
from xaicli.reader.pieces import Piece, Place, relative
from xaicli.reader.schema import conform, finite
from xaicli.reader.tally import Tally
from xaicli.reader.where import Where
from xaicli.vocabulary import ATTEMPT, RANK, SAMPLE_ID, STEP, Attempts, Duplicates

_TRIES = 5


def open_reader(
    layout: RunLayout, *, strict: bool = False, attempts: str = Attempts.LAST, where: str | None = None
) -> Reader:
    """Open a run for reading.

    Args:
        layout: The run.
        strict: Raise on a damaged file instead of leaving it out.
        attempts: `last` leaves out what later attempts took back of earlier ones, `all` leaves out nothing.
        where: A condition that rows meet, as SQL; other rows are as if they were not there.

    Raises:
        XaiError: The folder is no run or of a newer format version.
        UsageError: The condition is none.
    """
    return Reader(layout, strict=strict, attempts=attempts, where=where)


class Reader(Holdings):
    """One run and its rows.

    Damaged files are left out and named in `damaged` as they are met; with `strict` they raise `DamagedFileError`.
    """

    def __init__(
        self, layout: RunLayout, *, strict: bool = False, attempts: str = Attempts.LAST, where: str | None = None
    ) -> None:
        self._footers: dict[Path, Footer] = {}
        super().__init__(layout, strict=strict, attempts=attempts)
        self.where = Where.of(where, self.dtypes) if where else None

    @property
    def described(self) -> str:
        """What the run is called in a message."""
        return str(self.layout.root)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of labels 0, 1, 2, ..."""
        return self.manifest.label_names or ()

    def epoch_frames(
        self,
        mode: str,
        ds_id: str,
        columns: Sequence[str],
        epochs: Sequence[int] | None = None,
        *,
        duplicates: Duplicates = Duplicates.LAST,
        tally: Tally | None = None,
        tallies: dict[int, Tally] | None = None,
        keep_non_finite: bool = False,
    ) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows epoch by epoch: every byte verified, fenced rows dropped, duplicates resolved.

        Memory is bounded by two epochs: the next is read while the caller works on one. Non-finite metric values are
        null, so no statistic sees them; `tally` counts them.

        Args:
            columns: The columns of each frame, in this order; one that an epoch's files lack is null.
            epochs: Which epochs, in this order; all, ascending, when None.
            tally: What counts rows, non-finite values and duplicates.
            tallies: The same, for each epoch apart.
            keep_non_finite: Leave NaN and infinities as they are stored.

        Yields:
            (epoch, frame) for each epoch with rows.

        Raises:
            DamagedFileError: A file is damaged and the reader is strict.
            XaiError: There are duplicates and `duplicates` is `error`.
        """
        wanted = list(self.epochs(mode, ds_id) if epochs is None else epochs)
        with ThreadPoolExecutor(1) as ahead:

            def read(epoch: int) -> Future[tuple[pl.DataFrame, Tally]]:
                place = Place(mode, ds_id, epoch)
                return ahead.submit(self.frame, place, columns, duplicates, keep_non_finite=keep_non_finite)

            reading = [read(epoch) for epoch in wanted[:1]]
            for number, epoch in enumerate(wanted):
                frame, counted = reading.pop().result()
                reading += [read(later) for later in wanted[number + 1 : number + 2]]
                if tally is not None:
                    tally.add(counted)
                if tallies is not None:
                    tallies[epoch] = counted
                if frame.height:
                    yield epoch, frame
                del frame

    def frame(
        self,
        place: Place,
        columns: Sequence[str],
        duplicates: Duplicates = Duplicates.LAST,
        *,
        keep_non_finite: bool = False,
    ) -> tuple[pl.DataFrame, Tally]:
        """The rows of one place, as `epoch_frames` gives them, with what was counted."""
        beside = self.where.stored if self.where else []
        for _ in range(_TRIES):
            try:
                frame, tally = self._frame(place, list(dict.fromkeys([*beside, *columns])), duplicates)
                if self.where:
                    frame = self.where.rows(frame, place).select(columns)
                    tally.rows = frame.height
                if self._all_finite(place):
                    return frame, tally
                cleaned, tally.non_finite = finite(frame, self.metrics)
                return (frame if keep_non_finite else cleaned), tally
            except FileNotFoundError:
                # A compaction has replaced the file since it was listed.
                self.refresh()
        raise DamagedFileError(f"files of {place} keep vanishing while they are read", hint="try again")

    def _frame(self, place: Place, columns: list[str], duplicates: Duplicates) -> tuple[pl.DataFrame, Tally]:
        pieces = self.pieces(place)
        alone = len(pieces) == 1
        frame = self._concatenated(
            pieces,
            columns if SAMPLE_ID in columns else [*columns, SAMPLE_ID],
            spare_ids=alone and SAMPLE_ID not in columns,
        )
        tally = Tally()
        if not (alone and self._ids_are_unique(pieces[0])):
            tally.duplicates = duplicate_rows.count(frame[SAMPLE_ID])
        if tally.duplicates:
            duplicate_rows.refuse_if_asked(frame[SAMPLE_ID], duplicates, place)
            if duplicates is Duplicates.LAST:
                needed = list(dict.fromkeys([*columns, SAMPLE_ID, ATTEMPT, STEP, RANK]))
                frame = duplicate_rows.last(self._concatenated(pieces, needed))
        tally.rows = frame.height
        return frame.select(columns), tally

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
            spare_ids: Give nulls for `sample_id`, if it is the last column, where no sample repeats: it is wanted only
                to find duplicates.

        Raises:
            FileNotFoundError: The file has vanished.
            DamagedFileError: It is damaged and the reader is strict.
        """
        wanted = list(dict.fromkeys([*columns, *([] if piece.fence is None else [STEP])]))
        stored = [name for name in wanted if name not in (ATTEMPT, RANK)]
        if piece.live is not None:
            table = piece.live.select([name for name in stored if name in piece.live.column_names])
        else:
            assert piece.file is not None
            path = relative(self.layout, piece.file)
            try:
                with parquet.opened(piece.file.path, self.records.get(path)) as file:
                    footer = self._footers.setdefault(piece.file.path, Footer.of(file.metadata))
                    if spare_ids and footer.sorted_ids and columns[-1] == SAMPLE_ID and len(columns) > 1:
                        stored.remove(SAMPLE_ID)
                    table = parquet.decoded(file, stored)
            except DamagedFileError as error:
                self.note(error, path)
                return None
        # Where the file has none of the columns, their nulls still need a height.
        frame = pl.DataFrame(pl.from_arrow(table)) if table.num_columns else pl.DataFrame({"": [None] * table.num_rows})
        attempt, rank, _ = piece.order
        origin = [pl.lit(attempt, pl.Int16).alias(ATTEMPT), pl.lit(rank, pl.Int16).alias(RANK)]
        if piece.fence is not None:
            frame = frame.filter(pl.col(STEP) < piece.fence)
        if {ATTEMPT, RANK} & set(wanted):
            frame = frame.with_columns(column for column in origin if column.meta.output_name() in wanted)
        return conform(frame, columns, self.dtypes)

    def last_step(self, place: Place) -> int | None:
        """The largest step logged at a place, from the footers where they tell; None without rows."""
        return max((found[1] for piece in self.pieces(place) if (found := self._steps(piece))), default=None)

    def row_count(self, place: Place) -> int:
        """How many rows of a place count, duplicates included, from the footers where they tell."""
        return sum(self._count(piece) for piece in self.pieces(place))

    def duplicate_count(self, place: Place) -> int:
        """How many rows of a place repeat a sample; ids are read only where a footer does not tell."""
        pieces = self.pieces(place)
        if len(pieces) == 1 and pieces[0].file and (footer := self._footer(pieces[0])) and footer.sorted_ids:
            return 0
        return self.frame(place, [SAMPLE_ID], Duplicates.ALL)[1].duplicates

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
            footer = read_footer(piece.file.path, self.records.get(path))
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
        """The rows of one (mode, ds_id), lazily: verified whole files, fenced, live rows included.

        Duplicates and non-finite values are untouched.

        Args:
            epochs: All when None.
            columns: All when None.
        """
        wanted = self.epochs(mode, ds_id) if epochs is None else epochs
        kept = list(columns or self.dtypes)
        places = [Place(mode, ds_id, epoch) for epoch in wanted]
        if self.where is None:
            return scan(self, places, kept)
        read = list(dict.fromkeys([*kept, *self.where.stored]))
        of_epochs = [(scan(self, [place], read), place) for place in places]
        return pl.concat([self.where.lazily(lazy, place).select(kept) for lazy, place in of_epochs])
