"""What samples are, as the run's files say it: of several kinds, in any order, beside damaged files."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xaicli
from xaicli.layout import PartName, RunLayout
from xaicli.reader import open_reader
from xaicli.wal.rows import records_metadata


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


def test_what_is_missing_in_a_table_of_pandas_is_no_value(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    columns = {
        "source": pd.Series(["web", np.nan, None, "lab"], dtype=object),
        "camera": pd.Series(["old", None, "new", "old"], dtype="category"),
        "name": pd.Series(["a", pd.NA, "b", "c"], dtype="string"),
        "size": pd.Series([1, None, 2, 3], dtype="Int64"),
        "night": pd.Series([True, None, False, True], dtype="boolean"),
        "dark": [True, float("nan"), False, True],
        "taken": pd.to_datetime(pd.Series(["2026-01-02", None, "2026-01-03", "2026-01-03"])),
        "zoned": pd.to_datetime(pd.Series(["2026-01-02T00:00+01:00", None] * 2), utc=True),
        "bright": pd.Series([0.5, np.nan, 1.0, 2.0]),
    }
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_facts(pd.Series([1, 2, 3, 4]), **columns)
        run.log_samples(sample_id=[1, 2, 3, 4], loss=[1.0] * 4, mode="eval", epoch=1)
    found = facts_of(tmp_path / "run")
    assert {name for name, value in found[2].items() if value is None} == set(columns)
    assert found[1]["source"] == "web"
    assert (found[3]["source"], found[3]["camera"], found[3]["size"], found[3]["dark"]) == (None, "new", 2, False)
    assert found[4]["taken"] == datetime(2026, 1, 3)
    assert found[3]["zoned"] == datetime(2026, 1, 1, 23, tzinfo=UTC)


def test_no_hour_and_no_zone_is_lost_among_others(tmp_path: Path) -> None:
    noon, east = datetime(2026, 1, 2, 12), datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))
    day = date(2026, 1, 2)
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_facts(
            [1, 2], days=[day, noon], zones=[noon, east], east=[east, east.astimezone(UTC)], words=["2026-01-02", day]
        )
        run.log_samples(sample_id=[1, 2], loss=[1.0] * 2, mode="eval", epoch=1)
    found = facts_of(tmp_path / "run")
    assert [found[i]["days"] for i in (1, 2)] == [datetime(2026, 1, 2), noon]
    assert [found[i]["zones"] for i in (1, 2)] == ["2026-01-02 12:00:00", "2026-01-02 12:00:00+02:00"]
    assert [found[i]["east"] for i in (1, 2)] == [east, east]
    assert [found[i]["words"] for i in (1, 2)] == ["2026-01-02", "2026-01-02"]


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "a file each"])
def test_batches_of_other_kinds_of_time_and_number_are_one_fact(tmp_path: Path, apart: bool) -> None:
    east = timezone(timedelta(hours=2))
    batches = [
        {"at": [date(2026, 1, 2)], "zoned": [datetime(2026, 1, 2, 12, tzinfo=east)], "n": [2**60 + 1]},
        {"at": [datetime(2026, 1, 2, 12)], "zoned": [datetime(2026, 1, 2, 12, tzinfo=UTC)], "n": [0.5]},
        {"at": np.array(["2026-01-03"], "datetime64[ns]"), "zoned": [None], "n": [7]},
    ]
    run = xaicli.Run(tmp_path / "run")
    for sample_id, facts in enumerate(batches, start=1):
        run.log_facts([sample_id], **facts)
        run.log_samples(sample_id=[sample_id], loss=[1.0], mode="eval", epoch=1)
        if apart:
            run.close()
            run = xaicli.Run(tmp_path / "run")
    run.close()
    found = facts_of(tmp_path / "run")
    assert [found[i]["at"] for i in (1, 2, 3)] == [datetime(2026, 1, 2), datetime(2026, 1, 2, 12), datetime(2026, 1, 3)]
    assert [found[i]["zoned"] for i in (1, 2, 3)] == [
        datetime(2026, 1, 2, 10, tzinfo=UTC),
        datetime(2026, 1, 2, 12, tzinfo=UTC),
        None,
    ]
    # The first is no double, which costs its last digits and no other fact.
    assert [found[i]["n"] for i in (1, 2, 3)] == [2.0**60, 0.5, 7.0]


def test_facts_of_no_sample_at_all_are_told(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([f"{i}.png" for i in range(40)], camera=["old", "new"] * 20)
        run.log_samples(sample_id=[str(i) for i in range(40)], label=[0] * 40, loss=[1.0] * 40, mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for answer in (opened.samples(), opened.slices()):
        told = json.loads(answer.to_json())["warnings"]
        assert [words for words in told if "none of the 40 ids with facts is a sample of the run" in words]
        assert [words for words in told if "'0.png' against '0'" in words]


ZONES = ["+05:30", "-03:30", "+0530", "UTC+05:30", "Foo/Bar"]


def zoned(zone: str) -> pa.Array:
    return pa.array([datetime(2025, 12, 31, 18, 30), None]).cast(pa.timestamp("us", zone))


@pytest.mark.parametrize("zone", ZONES)
def test_times_of_any_zone_that_were_recorded_are_the_same_moments(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the versions that kept a zone as it was given; while the run is recorded, and from its files."""
    monkeypatch.setattr("xaicli.recorder.records.in_utc", lambda table: (table, {}))
    moment = datetime(2025, 12, 31, 18, 30, tzinfo=UTC)
    expected = {1: {"camera": "left", "at": moment}, 2: {"camera": "right", "at": None}}
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], camera=["left", "right"], at=zoned(zone))
        run.log_samples(sample_id=[1, 2], label=[0, 1], prediction=[0, 0], loss=[1.0, 2.0], mode="eval", epoch=1)
        run.flush()
        assert facts_of(tmp_path / "run") == expected
    [path] = (tmp_path / "run" / "facts").glob("*.parquet")
    assert pq.read_schema(path).field("at").type.tz == zone
    assert facts_of(tmp_path / "run") == expected
    answers = xaicli.open_run(tmp_path / "run")
    for answer in (answers.info(), answers.samples()):
        assert (
            f"at was recorded in the zone {zone}: its times are those of UTC"
            in json.loads(answer.to_json())["warnings"]
        )
    listed = {fact["fact"]: fact for fact in json.loads(answers.info().to_json())["facts"]}
    assert (listed["at"]["samples"], listed["at"]["type"], listed["camera"]["samples"]) == (1, "datetime (UTC)", 2)


def test_a_fact_that_cannot_be_read_takes_no_other(tmp_path: Path) -> None:
    """Of bytes beside texts there is no one kind: those that spell no text are left out."""
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([3], raw=["text"], camera=["top"])
        run.log_samples(sample_id=[3], label=[0], prediction=[0], loss=[1.0], mode="eval", epoch=1)
    [path] = (tmp_path / "run" / "facts").glob("*.parquet")
    table = pa.table({"sample_id": [1, 2], "camera": ["left", "right"], "raw": [b"\xff\xfe", None]})
    other = path.with_name(path.name.replace("000000", "000001", 1))
    part = PartName.parse(other.name)
    assert part is not None
    run_id = RunLayout(tmp_path / "run").read_manifest().run_id
    pq.write_table(table.replace_schema_metadata(records_metadata(run_id, part)), other)
    found = facts_of(tmp_path / "run")
    assert [found[i]["camera"] for i in (1, 2, 3)] == ["left", "right", "top"]
    assert found[3]["raw"] == "text"
    told = json.loads(xaicli.open_run(tmp_path / "run").samples().to_json())["warnings"]
    assert "1 value of the fact raw cannot be read: left out" in told
