"""What stands behind an open run: the attempt, the schema, the writer and what it is fed from."""

from __future__ import annotations

from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.manifest import Manifest
from xaicli.recorder import media, scalars, start
from xaicli.recorder.buffer import Buffer
from xaicli.recorder.catalogue import Catalogue
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.recovery import recover
from xaicli.recorder.stream import SampleStream
from xaicli.recorder.writer import Writer
from xaicli.wal.frames import SegmentFacts

FLUSH_SECONDS = 60.0
CLOSE_SECONDS = 2.0
_FLUSH_AT_CLOSE = 30.0
"""Seconds the last flush may take while files are still being written."""


class Session:
    """One process's part in a run.

    Attributes:
        fault: Why nothing can be recorded, or "".
    """

    def __init__(self, layout: RunLayout, fresh: Manifest, *, rank: int, resume: str, strict: bool) -> None:
        """
        Args:
            layout: The run directory.
            fresh: The manifest of a new run.
            rank: The process's rank.
            resume: Whether an existing run may be continued.
            strict: Raise when the disk refuses; else the session has a fault, and training goes on.

        Raises:
            XaiError: The directory contradicts `resume` or is of a newer format; with `strict`, the disk refuses.
        """
        self.layout = layout
        self.attempt = 0
        self.fault = ""
        manifest = fresh
        try:
            self.attempt = start.claim_attempt(layout, rank, resume=resume)
            manifest = start.open_manifest(layout, fresh)
        except OSError as error:
            self.fault = f"{layout.root} cannot be written: {error.strerror or error}"
            if strict:
                raise XaiError(self.fault, hint="name a folder on a disk with room that you may write to") from error
        self.ledger = Ledger(start.stats_file(layout, self.attempt, rank))
        self.catalogue = Catalogue(layout, manifest)
        self.writer = Writer(self.ledger, interval=FLUSH_SECONDS, on_timer=self.hand_over)
        origin = SegmentFacts(manifest.run_id, self.attempt, rank, "", "", 0, start.boot_id())
        self.samples = SampleStream(layout, origin, self.catalogue, self.ledger, self.writer)
        place = (self.attempt, rank)
        self.scalars = Buffer(
            layout, layout.scalars, place, scalars.to_table, self.writer, self.ledger, with_journal=True
        )
        self.media = Buffer(layout, layout.media, place, media.image_table, self.writer, self.ledger)
        self.inputs = Buffer(layout, layout.inputs, place, media.input_table, self.writer, self.ledger)
        if self.fault:
            self.ledger.warn("fault", f"xai: {self.fault}; nothing is recorded, training goes on")
        else:
            self.ledger.write()
            self._recover()

    def _recover(self) -> None:
        """Store what a killed training left; a disk that refuses leaves it where readers find it too."""
        try:
            recover(self.layout, self._note_lost)
        except (OSError, XaiError) as error:
            self.ledger.warn("recover", f"xai: rows of a killed training stay in {self.layout.wal} for now: {error}")

    def _note_lost(self, rows: int) -> None:
        self.ledger.rows_logged += rows
        self.ledger.drop(rows, "rows of a killed training are damaged in its segment")

    def hand_over(self) -> None:
        """Give everything held to the writer."""
        self.samples.hand_over()
        for buffer in (self.scalars, self.media, self.inputs):
            buffer.hand_over()

    def flush(self, timeout: float | None = None) -> bool:
        """Put everything into files; False where that failed or took too long."""
        self.hand_over()
        done = self.writer.wait_idle(timeout)
        self.ledger.write()
        return done

    def close(self) -> None:
        """Flush for a bounded time and end; what the disk does not take is counted."""
        self.flush(_FLUSH_AT_CLOSE)
        for job in self.writer.stop(CLOSE_SECONDS):
            job.give_up("the disk took no more when the run was closed")
        self.samples.close()
        if not self.fault:
            self.ledger.write()
