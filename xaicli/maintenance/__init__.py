"""What keeps a run directory in order: compaction, verification, export."""
