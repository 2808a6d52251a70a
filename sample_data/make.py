"""Make what lies in this folder, the same every time: `python sample_data/make.py`.

`digits.parquet` comes from scikit-learn's copy of the UCI data; `run/` is the demo's training, recorded.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

from xaicli.demo import record

HERE = Path(__file__).parent


def make_digits(path: Path) -> None:
    """Write the 1,797 digits: sample_id int32, label int8, pixels 64 x uint8 (8 x 8 rows, 0 paper to 16 ink)."""
    data = load_digits()
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(data.data.astype("uint8").ravel()), 64)
    ids = pa.array(range(len(data.target)), pa.int32())
    table = pa.table({"sample_id": ids, "label": pa.array(data.target.astype("int8")), "pixels": pixels})
    pq.write_table(table, path, compression="zstd")


def main() -> None:
    make_digits(HERE / "digits.parquet")
    shutil.rmtree(HERE / "run", ignore_errors=True)
    record(HERE / "run")


if __name__ == "__main__":
    main()
