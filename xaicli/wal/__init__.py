"""Write-ahead segments: their format, and how anyone reads them beside the files they become."""

from xaicli.wal.snapshot import Snapshot, take_snapshot

__all__ = ["Snapshot", "take_snapshot"]
