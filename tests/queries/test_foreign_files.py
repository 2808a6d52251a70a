"""Parquet files that are not the run's, among its parts: named, left out, and no number changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xaicli
from tests.written_run import WrittenRun
from xaicli.api.run import RunReader
from xaicli.errors import DamagedFileError
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.maintenance.doctor import examine
from xaicli.results import Result
from xaicli.wal.records import scalar_table

ROWS = [
    {"sample_id": i, "epoch": epoch, "label": i % 3, "loss": i / epoch, "correct": i % 2 == 0}
    for epoch in (1, 2)
    for i in range(12)
]


def rows_of_another_kind(path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "price": [1.0]}), path)


def the_same_columns(path: Path) -> None:
    kinds = {"sample_id": pa.int64(), "step": pa.int64(), "label": pa.int32(), "loss": pa.float32()}
    pq.write_table(pa.table({name: pa.array([0, 1], kind) for name, kind in kinds.items()}), path)


def other_types(path: Path) -> None:
    pq.write_table(pa.table({"sample_id": ["x"], "step": ["y"], "loss": [[1.0]], "label": [{"a": 1}]}), path)


def nested(path: Path) -> None:
    pq.write_table(pa.table({"m": pa.array([[("a", [1])]], pa.map_(pa.string(), pa.list_(pa.int8())))}), path)


def no_rows(path: Path) -> None:
    pq.write_table(pa.table({"sample_id": pa.array([], pa.int64()), "step": pa.array([], pa.int64())}), path)


def no_columns(path: Path) -> None:
    pq.write_table(pa.table({}), path)


def other_facts_in_the_footer(path: Path) -> None:
    for_us = {"xai": '{"run_id": 7, "passes": "all", "steps": [], "non_finite": 3, "epoch": null}'}
    pq.write_table(pa.table({"sample_id": [1], "step": [1]}).replace_schema_metadata(for_us), path)


def facts_that_are_no_json(path: Path) -> None:
    pq.write_table(pa.table({"sample_id": [1], "step": [1]}).replace_schema_metadata({"xai": b"\xff[1"}), path)


def encrypted(path: Path) -> None:
    path.write_bytes(b"PARE" + bytes(200) + (100).to_bytes(4, "little") + b"PARE")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_footer_longer_than_the_file(path: Path) -> None:
    path.write_bytes(b"PAR1" + (1 << 30).to_bytes(4, "little") + b"PAR1")


def truncated(path: Path) -> None:
    the_same_columns(path)
    path.write_bytes(path.read_bytes()[:-30])


def text(path: Path) -> None:
    path.write_text("sample_id,loss\n1,2\n")


def a_link_to_a_file_that_is_gone(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def of_another_run(path: Path) -> None:
    other = WrittenRun(path.parents[5] / "other")
    facts = other.layout.read_manifest()
    (part,) = other.write(row for row in ROWS if row["epoch"] == 1)
    footer = pq.read_schema(part).metadata
    table = pq.ParquetFile(part).read()
    known = footer[b"xai"].replace(facts.run_id.encode(), b"another")
    pq.write_table(table.replace_schema_metadata({b"xai": known}), path)
    shutil.rmtree(other.layout.root)


def of_another_epoch(path: Path) -> None:
    (part,) = path.parents[1].glob("epoch=2/part-a000000-r0000-00000001.parquet")
    shutil.copy(part, path)


def a_copy_of_a_part(path: Path) -> None:
    (part, *_) = sorted(path.parent.glob("part-a000000-*.parquet"))
    shutil.copy(part, path)


STRANGERS = [
    rows_of_another_kind,
    the_same_columns,
    other_types,
    nested,
    no_rows,
    no_columns,
    other_facts_in_the_footer,
    facts_that_are_no_json,
    encrypted,
    empty,
    a_footer_longer_than_the_file,
    truncated,
    text,
    a_link_to_a_file_that_is_gone,
    of_another_run,
    of_another_epoch,
    a_copy_of_a_part,
]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is answered where nothing else lies beside the run's files."""
    run = WrittenRun(tmp_path_factory.mktemp("alone") / "run")
    run.write(ROWS)
    return answers(RunReader(run.layout), "polars")


def samples(reader: RunReader, engine: str) -> Result:
    return reader.samples(max=2, min=2, ids=[5], engine=engine)


def answers(reader: RunReader, engine: str) -> dict[str, Any]:
    asked = {
        "samples": samples(reader, engine),
        "labels": reader.labels(bounds=["std"], engine=engine),
        "info": reader.info(),
    }
    found = {name: (result.data.to_dicts(), result.answer.counts.damaged) for name, result in asked.items()}
    for row in found["info"][0]:
        del row["files"]
    return found | {"scan": (sorted(reader.scan().collect().select("sample_id", "epoch", "loss").rows()), ())}


@pytest.mark.parametrize(
    "name", ["part-a000000-r0000-00000009.parquet", "c-a000000-r0000-00000000-00000099.parquet", "x.parquet"]
)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_among_the_parts(
    tmp_path: Path, truth: dict[str, Any], stranger: Callable[[Path], None], name: str
) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(ROWS)
    path = run.layout.folder("eval", "", 1) / name
    stranger(path)
    named = (path.relative_to(run.layout.root).as_posix(),)
    assert not [said for said in RunReader(run.layout).info().answer.warnings if "ther tools" in said]
    for engine in ("polars", "duckdb"):
        found = answers(RunReader(run.layout), engine)
        for question, (rows, _) in truth.items():
            assert found[question][0] == rows, question
        assert {found[question][1] for question in ("samples", "labels", "info")} == {named}
    with pytest.raises(DamagedFileError, match=f"^{named[0]} is not this run's\n"):
        RunReader(run.layout).samples(strict=True)
    assert named[0] in {finding.path for finding in examine(run.layout).findings}
    compact(RunLayout(tmp_path / "run"), grace=0)
    assert path.exists() or path.is_symlink()
    left = samples(RunReader(run.layout), "polars")
    assert (left.data.to_dicts(), left.answer.counts.damaged) == (truth["samples"][0], named)


@pytest.mark.parametrize(
    "copy",
    [
        "epoch=01/part-a000000-r0000-00000000.parquet",
        "epoch=\u0661/part-a000000-r0000-00000000.parquet",
        "epoch=1 copy/part-a000000-r0000-00000000.parquet",
        "epoch=1/part-a000000-r0000-000000000.parquet",
    ],
)
def test_a_copy_under_another_spelling_of_the_place_is_no_duplicate(
    tmp_path: Path, truth: dict[str, Any], copy: str
) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(ROWS)
    (part,) = run.layout.folder("eval", "", 1).glob("part-a000000-*.parquet")
    path = part.parents[1] / copy
    path.parent.mkdir(exist_ok=True)
    shutil.copy(part, path)
    named = (path.relative_to(run.layout.root).as_posix(),)
    for duplicates in ("last", "all"):
        asked = RunReader(run.layout).labels(bounds=["std"], duplicates=duplicates)
        assert asked.data.to_dicts() == truth["labels"][0]
        assert (asked.answer.counts.damaged, asked.answer.counts.duplicates) == (named, 0)
    assert named[0] in {finding.path for finding in examine(run.layout).findings}


def test_a_part_whose_record_was_lost_is_the_runs(tmp_path: Path, truth: dict[str, Any]) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(ROWS)
    for path in run.layout.attempts.glob("*.files"):
        path.unlink()
    assert answers(RunReader(run.layout), "polars") == truth


@pytest.mark.parametrize("stranger", STRANGERS[:-3])
def test_a_stranger_among_scalars_tables_and_pictures(tmp_path: Path, stranger: Callable[[Path], None]) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
        run.log({"step": 1, "lr": 0.5})
        run.log_images([1], np.zeros((1, 4, 4, 3), np.uint8))
        run.add_metrics_data({"example_id": [0, 1], "iou": [0.25, 0.75]}, name="boxes")
    reader = xaicli.open_run(tmp_path / "run")

    def asked() -> list[Any]:
        found = [reader.scalars(), reader.samples(table="boxes", metric="iou"), reader.query("SELECT * FROM boxes")]
        return [result.data.drop("run", strict=False).to_dicts() for result in found]

    truth = asked()
    name = "part-a000000-r0000-00000009.parquet"
    for folder in ("scalars", "media", "tables/boxes"):
        stranger(tmp_path / "run" / folder / name)
    assert asked() == truth
    assert reader.scalars().answer.counts.damaged == (f"scalars/{name}",)
    assert f"tables/boxes/{name}" in (reader.info().answer.counts.damaged or ())
    assert "iou" in reader.samples(table="boxes", metric="iou").html()
    assert reader.samples().html()


def recorded_beside(root: Path) -> RunReader:
    with xaicli.Run(root) as run:
        run.log_facts([1, 2], camera=["front", "rear"])
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1, step=1)
        run.log({"epoch": 1, "step": 1, "lr": 0.5})
    return xaicli.open_run(root)


_OTHERS = {
    "facts": pa.table({"sample_id": pa.array([1, 2], pa.int64()), "camera": ["other", "other"]}),
    "scalars": scalar_table([("lr", "train", "", 1, 1, "step", 9.0, 0, 0)]),
}
"""Sound files with the columns that a folder's own have."""


@pytest.mark.parametrize("name", ["backup.parquet", "part-a000000-r0000-00000091.parquet"])
@pytest.mark.parametrize("folder", _OTHERS)
def test_a_stranger_among_facts_and_scalars_is_named(tmp_path: Path, folder: str, name: str) -> None:
    root = tmp_path / "run"
    recorded_beside(root)
    pq.write_table(_OTHERS[folder], root / folder / name)
    run = xaicli.open_run(root)
    of_facts = run.query("SELECT camera FROM facts ORDER BY sample_id")
    of_scalars = run.query("SELECT value FROM scalars")
    assert (of_facts.data["camera"].to_list(), of_scalars.data["value"].to_list()) == (["front", "rear"], [0.5])
    named = of_facts if folder == "facts" else of_scalars
    assert named.answer.counts.damaged == (f"{folder}/{name}",)
    assert [(f.path, f.complaint) for f in examine(RunLayout(root)).findings] == [(f"{folder}/{name}", "foreign")]


@pytest.mark.parametrize("lost", [["facts", "scalars"], ["facts"]])
def test_facts_and_scalars_whose_record_was_lost_are_the_runs(tmp_path: Path, lost: list[str]) -> None:
    root = tmp_path / "run"
    recorded_beside(root)
    (records,) = (root / "attempts").glob("*.files")
    kept = [line for line in records.read_text().splitlines(True) if not any(f'"{name}/' in line for name in lost)]
    records.write_text("".join(kept))
    with xaicli.Run(root) as run:  # another file of facts, which is recorded
        run.log_facts([2], camera=["side"])
    answer = xaicli.open_run(root).query("SELECT camera FROM facts ORDER BY sample_id").answer
    assert (answer.data["camera"].to_list(), answer.counts.damaged) == (["front", "side"], ())
    assert xaicli.open_run(root).query("SELECT value FROM scalars").data["value"].to_list() == [0.5]
    assert examine(RunLayout(root)).findings == ()
