"""What is counted while rows are read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """Counts that grow while a query reads."""

    rows: int = 0
    """Rows that count: fenced rows and resolved duplicates are not among them."""
    non_finite: int = 0
    """NaN and infinite values among the metrics read."""
    duplicates: int = 0
    """Rows beyond the first of one (mode, ds_id, epoch, sample_id)."""

    def add(self, other: Tally) -> None:
        """Count what another tally has counted, too."""
        self.rows += other.rows
        self.non_finite += other.non_finite
        self.duplicates += other.duplicates
