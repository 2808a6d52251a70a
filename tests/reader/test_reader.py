"""Which files and rows count: superseded, fenced, live, damaged, vanished."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests import oracle
from tests.written_run import WrittenRun
from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError
from xaicli.layout import PartName
from xaicli.maintenance.compact import compact
from xaicli.reader import Place, Reader, Tally, open_reader, pieces
from xaicli.reader.lazy import scan_folder, taken_back_of
from xaicli.reader.rows import Where
from xaicli.takeback import TakenBack
from xaicli.vocabulary import Attempts, Duplicates
from xaicli.wal.snapshot import LiveRows

EVAL_1 = Place("eval", "", 1)


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    return WrittenRun(tmp_path / "run")


def rows(ids: range, epoch: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [{"sample_id": i, "epoch": epoch, "label": i % 2, "loss": float(i), **more} for i in ids]


def ids_of(reader: Reader, place: Place = EVAL_1) -> list[int]:
    return reader.frame(place, ["sample_id"])[0]["sample_id"].to_list()


def test_holdings(run: WrittenRun) -> None:
    run.write(rows(range(3)) + rows(range(2), epoch=7) + rows(range(2), mode="train", ds_id="a/b"))
    reader = open_reader(run.layout)
    assert reader.modes() == ["train", "eval"]
    assert (reader.ds_ids("train"), reader.ds_ids("eval")) == (["a/b"], [""])
    assert reader.epochs("eval", "") == [1, 7]
    assert reader.metrics == ("loss",)
    assert [file.epoch for file in reader.files(["eval"], epochs=[7])] == [7]
    assert (reader.row_count(EVAL_1), reader.last_step(EVAL_1)) == (3, 10)


def test_compacted_file_supersedes_its_parts(run: WrittenRun) -> None:
    for i in range(3):
        run.write(rows(range(i, i + 1)))
    compacted = run.layout.folder("eval", "", 1) / PartName(0, 0, 0, 1, compacted=True).filename
    parts = [file.path for file in run.layout.data_files()]
    table = pa.concat_tables([parquet.read(path) for path in parts[:2]])
    parquet.append_record(run.layout, 0, 0, parquet.write(table, compacted, root=run.layout.root))
    assert sorted(ids_of(open_reader(run.layout))) == [0, 1, 2]
    # Deleted later; the records still know them.
    for path in parts[:2]:
        path.unlink()
    reader = open_reader(run.layout)
    assert sorted(ids_of(reader)) == [0, 1, 2]
    assert reader.damaged == ()


def test_a_compaction_in_between_is_followed(run: WrittenRun) -> None:
    run.write(rows(range(4)))
    reader = open_reader(run.layout)
    (part,) = [file.path for file in run.layout.data_files()]
    part.rename(part.with_name(PartName(0, 0, 0, 0, compacted=True).filename))
    assert ids_of(reader) == [0, 1, 2, 3]
    assert reader.scan("eval", "").collect().height == 4


@pytest.mark.parametrize(
    ("said", "logged", "kept"),
    [
        # By its first training row, whatever the steps of the other epochs and modes are.
        (None, {"mode": "train", "step": 3}, {1: [0, 1], 2: []}),
        (None, {"mode": "train", "step": 21}, {1: [0, 1], 2: [0, 1]}),
        # Other modes take nothing back.
        (None, {"mode": "test", "step": 0}, {1: [0, 1], 2: [0, 1], 3: [0, 1]}),
        # What its file says comes first.
        ((2, 20), {"mode": "train", "step": 22}, {1: [0, 1], 2: []}),
        ((2, 21), {"mode": "train", "step": 3}, {1: [0, 1], 2: [0, 1]}),
        ((1, 0), {"mode": "test", "step": 0}, {1: [], 2: []}),
    ],
)
def test_take_back(
    run: WrittenRun, said: tuple[int, int] | None, logged: dict[str, Any], kept: dict[int, list[int]]
) -> None:
    old = rows(range(2)) + rows(range(2), epoch=2) + rows(range(2), epoch=3)
    run.write(old)
    run.attempt(1, said)
    new = rows(range(5, 6), epoch=2, attempt=1, **logged)
    run.write(new)
    reader = open_reader(run.layout)
    known = reader.epochs("eval", "")
    assert {epoch: ids_of(reader, Place("eval", "", epoch)) for epoch in known} == {e: i for e, i in kept.items() if i}
    gone = oracle.taken_back(old + new, {1: said} if said else {})
    assert sum(taken.rows for taken in reader.taken_back) == len(gone) == reader.counts().taken_back
    everything = open_reader(run.layout, attempts="all")
    assert (everything.epochs("eval", ""), everything.taken_back, everything.warnings) == ([1, 2, 3], (), ())
    for taken in reader.taken_back:
        assert (taken.by, taken.attempt) == (1, 0)
        assert f"attempt 1 took back {taken.rows} rows of attempt 0 from epoch {taken.epoch}" in reader.warnings[0]


def test_an_attempt_beside_another_takes_nothing_back(run: WrittenRun) -> None:
    run.write(rows(range(2), mode="train"))
    run.attempt(1, beside=[0])
    run.write(rows(range(2), mode="train", attempt=1))
    reader = open_reader(run.layout)
    assert (ids_of(reader, Place("train", "", 1)), reader.taken_back) == ([0, 1], ())
    assert reader.frame(Place("train", "", 1), ["sample_id"], Duplicates.ALL)[0].height == 4


def test_each_row_is_taken_back_once(run: WrittenRun) -> None:
    """Three attempts, the last from further back: the first to take a row back is the one that is named."""
    found = [
        {"sample_id": i, "epoch": epoch, "step": 10 * epoch + i, "attempt": attempt, "mode": "train", "loss": 0.0}
        for attempt, begin, steps in ((0, 1, 6), (1, 2, 5), (2, 2, 3))
        for epoch in range(begin, 4)
        for i in range(6 - steps, 6)
    ]
    for row in found:
        run.write([row])
    for attempt in (1, 2):
        run.attempt(attempt)
    reader = open_reader(run.layout)
    counted: dict[tuple[int, int], int] = {}
    for pair in oracle.taken_back(found).values():
        counted[pair] = counted.get(pair, 0) + 1
    assert {(taken.by, taken.attempt): taken.rows for taken in reader.taken_back} == counted
    assert sum(reader.row_count(place) for place in reader.folders()) == len(oracle.left(found))


def test_take_back_through_a_file(run: WrittenRun) -> None:
    run.write([{"sample_id": i, "epoch": 1, "step": 10 + i, "loss": 0.0} for i in range(6)])
    run.attempt(1, (1, 13))
    reader = open_reader(run.layout)
    assert [tuple(taken) for taken in reader.taken_back] == [(1, 0, 1, 13, 3, "")]
    assert ids_of(reader) == [0, 1, 2]
    assert (reader.row_count(EVAL_1), reader.last_step(EVAL_1)) == (3, 12)
    assert reader.scan("eval", "", columns=["sample_id"]).collect()["sample_id"].to_list() == [0, 1, 2]


def test_a_damaged_file_that_was_partly_taken_back_counts_nothing(run: WrittenRun) -> None:
    (path,) = run.write([{"sample_id": i, "epoch": 1, "step": 10 + i, "loss": 0.0} for i in range(6)])
    run.attempt(1, (1, 13))
    run.write([{"sample_id": 7, "epoch": 1, "step": 14, "loss": 0.0, "attempt": 1}])
    path.write_bytes(path.read_bytes()[:-9])
    reader = open_reader(run.layout)
    assert (reader.row_count(EVAL_1), ids_of(reader)) == (1, [7])
    assert reader.counts().damaged == (path.relative_to(run.layout.root).as_posix(),)


def test_rows_of_a_table_are_taken_back_from_the_step_on(run: WrittenRun) -> None:
    run.write(rows(range(2)))
    run.attempt(1, (2, 20))
    folder = run.layout.table_folder("boxes")
    places = [(0, 1, 99), (0, 2, 19), (0, 2, 20), (0, 3, 0), (1, 2, 20), (1, 2, 5), (0, None, None)]
    columns = dict(zip(("attempt", "epoch", "step"), zip(*places, strict=True), strict=True))
    table = pa.table({name: pa.array(values, pa.int64()) for name, values in columns.items()})
    parquet.append_record(
        run.layout, 0, 0, parquet.write(table, folder / "part-a000000-r0000-00000009.parquet", root=run.layout.root)
    )
    found = scan_folder(open_reader(run.layout), folder).collect().select("attempt", "epoch", "step").rows()
    assert found == [(0, 1, 99), (0, 2, 19), (1, 2, 20), (1, 2, 5), (0, None, None)]
    assert taken_back_of(open_reader(run.layout), "boxes") == (TakenBack(1, 0, 2, 20, 2, "boxes"),)


@pytest.mark.parametrize("begins_anew", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_rows_of_a_table_that_say_their_epoch_alone_are_of_the_attempt_that_wrote_them(
    run: WrittenRun, begins_anew: bool, again: bool
) -> None:
    run.write(rows(range(2), epoch=2, mode="train", step=30 if begins_anew else 10))
    run.attempt(1, (2, 20))
    folder = run.layout.table_folder("det")
    for attempt, epochs in ((0, [1, 2, 3, None]), (1, [2] if again else [4])):
        table = pa.table({"example_id": [0] * len(epochs), "epoch": pa.array(epochs, pa.int32())})
        path = folder / f"part-a{attempt:06d}-r0000-00000009.parquet"
        parquet.append_record(run.layout, attempt, 0, parquet.write(table, path, root=run.layout.root))
    reader = open_reader(run.layout)
    found = scan_folder(reader, folder).collect()["epoch"].to_list()
    gone = begins_anew or again
    assert found == [1, *([] if gone else [2]), None, 2 if again else 4]
    assert taken_back_of(reader, "det") == (TakenBack(1, 0, 2, 20, 1 + gone, "det"),)
    assert scan_folder(open_reader(run.layout, attempts=Attempts.ALL), folder).collect().height == 5


def test_live_rows_join(run: WrittenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write(rows(range(2)))
    table = pa.table(
        {"sample_id": [8, 9], "epoch": [1, 1], "step": [11, 11], "loss": pa.array([1.0, 2.0], pa.float32())}
    )
    monkeypatch.setattr(pieces, "live_rows", lambda *_: [LiveRows("eval", "", 1, 0, 0, 1, table)])
    reader = open_reader(run.layout)
    assert ids_of(reader) == [0, 1, 8, 9]
    assert (reader.row_count(EVAL_1), reader.last_step(EVAL_1)) == (4, 11)
    assert reader.scan("eval", "").collect()["sample_id"].to_list() == [0, 1, 8, 9]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def flip_footer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = pytest.mark.parametrize("damage", [cut, flip_page, flip_footer, delete, empty])


@DAMAGE
def test_damaged_file_is_left_out_and_named(run: WrittenRun, damage: Callable[[Path], None]) -> None:
    good, bad = run.write(rows(range(50))), run.write(rows(range(50, 99)))
    damage(bad[0])
    reader = open_reader(run.layout)
    name = bad[0].relative_to(run.layout.root).as_posix()
    assert ids_of(reader) == list(range(50))
    assert reader.damaged == (name,)
    assert good[0].exists()
    lazily = open_reader(run.layout)
    assert lazily.scan("eval", "").collect().height == 50
    assert lazily.damaged == (name,)
    with pytest.raises(DamagedFileError, match="is missing" if damage is delete else "is damaged"):
        ids_of(open_reader(run.layout, strict=True))


def test_every_flipped_byte_is_noticed(run: WrittenRun) -> None:
    (path,) = run.write(rows(range(200)))
    content = path.read_bytes()
    good = ids_of(open_reader(run.layout))
    for place in range(4, len(content), max(1, len(content) // 120)):
        spoilt = bytearray(content)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        reader = open_reader(run.layout)
        frame, _ = reader.frame(EVAL_1, ["sample_id", "loss"])
        # Bytes of other columns are not read; those that are must be right or left out.
        assert reader.damaged or (frame["sample_id"].to_list() == good and frame["loss"].to_list() == good)


def test_verified_files_are_remembered_until_they_change(run: WrittenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = run.write(rows(range(5)))
    checked: list[Path] = []
    verify = parquet.verify
    monkeypatch.setattr(parquet, "verify", lambda path, *more: (checked.append(path), verify(path, *more)))
    for _ in range(2):
        open_reader(run.layout).scan("eval", "").collect()
    assert checked == [path]
    flip_page(path)
    reader = open_reader(run.layout)
    assert reader.scan("eval", "").collect().height == 0
    assert reader.damaged


def test_kept_contents_are_those_of_the_file_that_is_there(tmp_path: Path) -> None:
    contents, path = parquet.Contents(), tmp_path / "a"
    path.write_bytes(b"first")
    assert contents.of(path) == b"first"
    other = tmp_path / "b"
    other.write_bytes(b"other")
    other.replace(path)
    assert contents.of(path) == b"other"
    path.unlink()
    assert contents.of(path) == b"other"


def test_a_reader_limited_otherwise_shares_what_was_read_and_what_is_damaged(run: WrittenRun) -> None:
    (path,) = run.write(rows(range(5)))
    run.write(rows(range(5), epoch=2))
    reader = open_reader(run.layout, where="sample_id < 2")
    every, few = reader.limited(None), reader.limited("sample_id = 3")
    assert (ids_of(reader), ids_of(every), ids_of(few)) == ([0, 1], list(range(5)), [3])
    flip_page(path)
    assert every.scan("eval", "").collect().height == 5
    assert reader.damaged == every.damaged == (path.relative_to(run.layout.root).as_posix(),)
    with pytest.raises(XaiError):
        reader.limited("no_such_column = 1")


def test_file_without_record_is_good(run: WrittenRun) -> None:
    run.write(rows(range(5)), recorded=False)
    reader = open_reader(run.layout)
    assert ids_of(reader) == list(range(5))
    assert reader.damaged == ()


def test_duplicates(run: WrittenRun) -> None:
    run.write(rows(range(3)))
    run.write([{"sample_id": 1, "epoch": 1, "label": 0, "loss": 9.0, "rank": 1}])
    reader = open_reader(run.layout)
    found = reader.place_frames("eval", "", ["sample_id", "loss"], tally=(tally := Tally()))
    assert [rows.frame.rows() for rows in found] == [[(0, 0.0), (2, 2.0), (1, 9.0)]]
    assert tally == Tally(rows=3, non_finite=0, duplicates=1)
    everything, _ = reader.frame(EVAL_1, ["loss"], Duplicates.ALL)
    assert sorted(everything["loss"]) == [0.0, 1.0, 2.0, 9.0]
    with pytest.raises(XaiError, match="sample 1 was logged more than once in eval, epoch 1"):
        reader.frame(EVAL_1, ["loss"], Duplicates.ERROR)


@pytest.mark.parametrize("compacted", [False, True])
def test_passes_of_an_epoch(run: WrittenRun, compacted: bool) -> None:
    """Two walks in one epoch, of which one file holds both, beside an epoch that was walked once."""
    run.write(
        [
            {"sample_id": i, "epoch": 1, "pass": turn, "step": 10 * turn + i, "loss": loss}
            for turn, losses in enumerate([[1.0, 2.0, 3.0], [4.0, math.nan]])
            for i, loss in enumerate(losses)
        ]
    )
    run.write([{"sample_id": 0, "epoch": 1, "pass": 1, "step": 12, "loss": 6.0}])
    run.write(rows(range(2), epoch=2))
    if compacted:
        compact(run.layout, grace=0)
    reader = open_reader(run.layout)
    found = list(reader.place_frames("eval", "", ["sample_id", "loss", "pass", "epoch"], tally=(tally := Tally())))
    assert [(rows.place.epoch, rows.place.turn, rows.step) for rows in found] == [(1, 0, 2), (1, 1, 12), (2, 0, 20)]
    assert [sorted(rows.frame.rows()) for rows in found] == [
        [(0, 1.0, 0, 1), (1, 2.0, 0, 1), (2, 3.0, 0, 1)],
        [(0, 6.0, 1, 1), (1, None, 1, 1)],
        [(0, 0.0, 0, 2), (1, 1.0, 0, 2)],
    ]
    assert tally == Tally(rows=7, non_finite=1, duplicates=1)
    backwards = reader.place_frames("eval", "", ["loss"], backwards=True)
    assert [(rows.place.epoch, rows.place.turn) for rows in backwards] == [(2, 0), (1, 1), (1, 0)]
    assert reader.frame(Place("eval", "", 1, 0), ["loss"])[0].height == 3
    assert reader.frame(EVAL_1, ["loss"])[0].height == 2
    assert reader.duplicate_count(EVAL_1) == 1
    lazily = reader.scan("eval", "", columns=["sample_id", "pass"]).collect()
    assert sorted(lazily.rows()) == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0), (1, 1), (2, 0)]


def test_late_metric_is_null_before(run: WrittenRun) -> None:
    run.write(rows(range(2)))
    run.write(rows(range(2), epoch=2, late=0.5))
    reader = open_reader(run.layout)
    assert reader.metrics == ("loss", "late")
    places = reader.place_frames("eval", "", ["late"])
    found = {rows.place.epoch: rows.frame["late"].to_list() for rows in places}
    assert found == {1: [None, None], 2: [0.5, 0.5]}
    lazy = reader.scan("eval", "", columns=["epoch", "late"]).collect()
    assert lazy.schema == {"epoch": pl.Int32, "late": pl.Float32}


def test_column_that_never_reached_the_manifest(run: WrittenRun) -> None:
    run.write(rows(range(2)))
    facts = json.loads(run.layout.manifest.read_text())
    facts["columns"] = [column for column in facts["columns"] if column["name"] != "loss"]
    run.layout.manifest.write_text(json.dumps(facts))
    assert open_reader(run.layout).metrics == ("loss",)


def test_dropped_rows_by_reason(run: WrittenRun) -> None:
    run.write(rows(range(2)))
    (run.layout.attempts / "000000-r0000.stats").write_text(
        json.dumps({"rows_dropped": 5, "reasons": {"disk full": 3}})
    )
    (run.layout.attempts / "000000-r0001.stats").write_text("{")
    reader = open_reader(run.layout)
    assert (reader.dropped, reader.drops) == (5, {"disk full": 3, "other": 2})


def test_newer_version_is_refused_and_unknown_keys_are_not(run: WrittenRun) -> None:
    run.write(rows(range(2)))
    facts = json.loads(run.layout.manifest.read_text())
    run.layout.manifest.write_text(json.dumps({**facts, "colour": "blue"}))
    assert ids_of(open_reader(run.layout)) == [0, 1]
    run.layout.manifest.write_text(json.dumps({**facts, "version": 3}))
    with pytest.raises(XaiError, match="version 3"):
        open_reader(run.layout)


def test_foreign_files_are_passed_over(run: WrittenRun) -> None:
    (path,) = run.write(rows(range(2)))
    shutil.copy(path, path.with_name("copy of part.parquet"))
    path.with_name(f".{path.name}.tmp").write_bytes(b"half")
    (path.parent.parent / "epoch=next").mkdir()
    assert ids_of(open_reader(run.layout)) == [0, 1]


def test_a_condition_reads_the_columns_that_it_needs_of_the_rows() -> None:
    """Where rows lie is known without reading, and names come from the codes behind them."""
    dtypes = {"label": pl.Int32(), "prediction": pl.Int32(), "loss": pl.Float32(), "margin": pl.Float32()}
    condition = Where.of("loss > 1 AND epoch > 3 AND mode = 'eval' AND label_name = 'cat'", dtypes, ["cat", "dog"])
    assert sorted(condition.stored) == ["label", "loss"]
    assert Where.of("epoch > 3", dtypes).stored == []
