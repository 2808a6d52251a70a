"""Reading a run: which files count, which of their rows count, and that their bytes are those that were written."""

from __future__ import annotations

from xaicli.reader.pieces import Piece, Place
from xaicli.reader.rows import Tally
from xaicli.reader.run import Reader, Rows, open_reader
from xaicli.takeback import TakeBack, TakenBack

__all__ = ["Piece", "Place", "Reader", "Rows", "TakeBack", "TakenBack", "Tally", "open_reader"]
