"""A training that logs until it is killed: `killed_run.py RUN_DIR ACKS SEED [POINT NTH]`.

After every `log_samples` that returned, it logs the number of rows so far as a scalar, and an input and a fact under
that id, and appends the number to ACKS. Row i of rank r has the id
i * 1000 + r (as text for an odd SEED), loss i / 2 and label i % 10. With POINT it kills itself there, the NTH time. It
waits $PAUSE seconds between steps.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from xaicli import files
from xaicli.recorder import segments
from xaicli.recorder.run import Run

# Small segments, so that many are handed over before the kill; and a step waits for the disk as long as it takes, where
# it would drop its rows, counted, after a while: on a busy machine that came.
segments.SEGMENT_BYTES = 150_000
segments.LONGEST_WAIT = 60.0


def main(run_dir: str, acks: str, seed: int, point: str = "", nth: int = 0) -> None:
    hits = 0

    def reached(here: str) -> None:
        nonlocal hits
        hits += here == point
        if here == point and hits == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    files.reached = reached
    rank, pause = int(os.environ.get("RANK", 0)), float(os.environ.get("PAUSE", 0))
    draw = np.random.default_rng(seed)
    with Path(acks).open("ab", buffering=0) as acknowledged, Run(run_dir) as run:
        logged, step = 0, 0
        while True:
            step += 1
            n = int(draw.integers(1, 1500))
            i = np.arange(logged, logged + n)
            ids = i * 1000 + rank
            run.log_samples(
                sample_id=[f"{key}ß" for key in ids] if seed % 2 else ids,
                label=i % 10,
                loss=i / 2,
                mode="eval" if step // 20 % 2 else "train",
                epoch=step // 40,
                step=step,
            )
            logged += n
            key = f"{logged}ß" if seed % 2 else logged
            run.log({"step": step, "logged": logged})
            run.log_inputs([key], np.full((1, 3), logged, np.float32))
            run.log_facts([key], logged=logged)
            acknowledged.write(b"%d\n" % logged)
            time.sleep(pause)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:5], *map(int, sys.argv[5:6]))
