"""What the page of corrections says, with and without any."""

from __future__ import annotations

from pathlib import Path

import pytest

import xaicli
from xaicli.report.model import Table, Text


@pytest.mark.parametrize(
    ("looked_at", "pairs"),
    [({0: "cat", 1: "dog"}, None), ({0: "dog", 1: "dog", 2: "dog"}, [("cat", "dog", 2)])],
)
def test_pairs_are_told_where_there_are_any(tmp_path: Path, looked_at: dict[int, str], pairs: object) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_samples(sample_id=range(3), label=[0, 1, 0], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
    lines = ["sample_id,label", *(f"{i},{name}" for i, name in looked_at.items())]
    (tmp_path / "looked.csv").write_text("\n".join(lines))
    report = xaicli.open_run(tmp_path / "run").relabel_apply(tmp_path / "looked.csv").report
    blocks = [block for section in report.sections for block in section.blocks]
    said = [block.text for block in blocks if isinstance(block, Text)]
    assert ("No label was corrected." in said) is (pairs is None)
    tables = {block.name: block.rows for block in blocks if isinstance(block, Table)}
    assert ("pairs" in tables) is (pairs is not None)
    assert pairs is None or list(tables["pairs"]) == pairs
