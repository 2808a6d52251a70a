"""Write-ahead segments: their format, and how anyone reads them."""

from xaicli.wal.live import LiveRows, read_live

__all__ = ["LiveRows", "read_live"]
