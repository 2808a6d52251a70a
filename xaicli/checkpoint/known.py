"""Graphs that were saved or checked on this machine before, by their digests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def is_known(data: bytes) -> bool:
    """Whether a graph was saved or checked on this machine before."""
    return _mark(data).is_file()


def remember(data: bytes) -> None:
    """Note that a graph is known; where that cannot be written it will be checked again."""
    mark = _mark(data)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return


def _mark(data: bytes) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "xai" / "graphs" / hashlib.sha256(data).hexdigest()
