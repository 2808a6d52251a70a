"""What samples are, as the run's files say it: of several kinds, in any order, beside damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import xaicli
from xaicli.layout import RunLayout
from xaicli.reader import open_reader


def facts_of(folder: Path) -> dict[object, dict[str, object]]:
    frame = open_reader(RunLayout(folder)).facts.frame
    return {row.pop("sample_id"): row for row in frame.sort("sample_id").to_dicts()}


def test_numbers_of_several_widths_keep_their_values(tmp_path: Path) -> None:
    told = [{"size": [2**60 + 1], "length": [3]}, {"size": np.array([7], np.uint8), "length": [0.5]}]
    for sample_id, facts in enumerate(told, start=1):  # each in a file of its own
        with xaicli.Run(tmp_path / "run") as run:
            run.log_facts([sample_id], **facts)
            run.log_samples(sample_id=[sample_id], loss=[1.0], mode="eval", epoch=sample_id)
    # 2^60 + 1 is no double: whole numbers stay whole.
    assert facts_of(tmp_path / "run") == {1: {"size": 2**60 + 1, "length": 3.0}, 2: {"size": 7, "length": 0.5}}


def test_ids_told_before_the_first_rows_are_those_of_the_rows(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("sample_id,source\n17,a\n4,b\n")
    with xaicli.Run(tmp_path / "run", facts=tmp_path / "facts.csv") as run:
        run.log_samples(sample_id=["4", "17", "x"], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
    assert facts_of(tmp_path / "run") == {"17": {"source": "a"}, "4": {"source": "b"}}


def test_the_last_value_of_each_fact_counts(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], source=["a", "b"], size=[1, 2])
        run.log_facts([2], source=["z"])
        run.log_facts([1], size=[5])
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    assert facts_of(tmp_path / "run") == {1: {"source": "a", "size": 5}, 2: {"source": "z", "size": 2}}
