"""A reader beside a training that logs and a compaction that removes what it replaces: no gap, no double row."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.reader import Tally, open_reader

TRAINING = """
import os, sys, time
import numpy as np
import xaicli

with xaicli.Run(sys.argv[1]) as run, open(sys.argv[1] + ".logged", "wb", 0) as logged:
    n = 0
    while not os.path.exists(sys.argv[1] + ".enough"):
        ids = np.arange(n, n + 64)
        run.log_samples(sample_id=ids, loss=ids % 100, mode="eval", epoch=n // 8000, step=n // 64)
        n += 64
        logged.seek(0)
        logged.write(b"%12d" % n)
        if n % 3200 == 0:
            run.flush()
        time.sleep(0.001)
"""


def test_no_gap_and_no_double_row(tmp_path: Path) -> None:
    root, logged, enough = (tmp_path / name for name in ("run", "run.logged", "run.enough"))
    training = subprocess.Popen([sys.executable, "-c", TRAINING, str(root)])
    try:
        while not (root / "xai.json").exists() or not logged.exists():
            assert training.poll() is None
            time.sleep(0.05)
        reads = 0
        # Until there were several epochs and compactions, however long the machine takes to them.
        while training.poll() is None:
            acknowledged = int(logged.read_bytes() or 0)
            reader = open_reader(RunLayout(root))
            tally = Tally()
            frames = [
                rows.frame
                for ds_id in reader.ds_ids("eval")
                for rows in reader.place_frames("eval", ds_id, ["sample_id"], tally=tally)
            ]
            ids = pl.concat(frames)["sample_id"].sort() if frames else pl.Series([], dtype=pl.Int64)
            assert len(ids) >= acknowledged
            assert ids.to_list() == list(range(len(ids)))
            assert (tally.duplicates, reader.damaged) == (0, ())
            lazily = reader.scan("eval", "", columns=["sample_id"]).collect()["sample_id"]
            assert lazily.n_unique() == len(lazily) >= acknowledged
            reads += 1
            if reads % 3 == 0:
                compact(RunLayout(root), grace=0.0)
            if reads >= 12 and len(ids) > 30_000:
                enough.touch()
        assert training.returncode == 0
        assert reads >= 12
    finally:
        training.kill()
        training.wait(30)
