"""Facts as people hand them over: one for all, containers of several kinds, and the reasons of those refused."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import itertools
import json
import re
import uuid
import warnings
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from xaicli.layout import RunLayout
from xaicli.reader import open_reader
from xaicli.recorder.run import Run


class Colour(enum.Enum):
    RED = "red"


class Grade(enum.IntEnum):
    LOW = 1


class Side(enum.Flag):
    LEFT = 1
    RIGHT = 2


DAY, TIME = datetime.date(2026, 5, 17), datetime.datetime(2026, 5, 17, 4, 5, 6)
UTC_TIME = TIME.replace(tzinfo=datetime.UTC)
SINGLE = {
    "text": ("front", "front"),
    "numpy text": (np.str_("front"), "front"),
    "whole": (3, 3),
    "numpy whole": (np.int16(3), 3),
    "numpy unsigned": (np.uint8(200), 200),
    "real": (0.5, 0.5),
    "numpy real": (np.float32(0.5), 0.5),
    "numpy half": (np.float16(0.5), 0.5),
    "true": (True, True),
    "numpy true": (np.bool_(True), True),
    "decimal": (decimal.Decimal("1.5"), 1.5),
    "path": (PurePosixPath("a/b.png"), "a/b.png"),
    "uuid": (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "enum": (Colour.RED, "red"),
    "whole enum": (Grade.LOW, 1),
    "flag": (Side.RIGHT, 2),
    "tensor": (torch.tensor(3), 3),
    "true tensor": (torch.tensor(True), True),
    "bfloat16 tensor": (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
    "array": (np.array(3), 3),
    "array of text": (np.array("front"), "front"),
    "array of an object": (np.array(PurePosixPath("a/b.png"), dtype=object), "a/b.png"),
    "day": (DAY, DAY),
    "time": (TIME, TIME),
    "time with a zone": (UTC_TIME, UTC_TIME),
    "numpy day": (np.datetime64("2026-05-17"), DAY),
    "numpy month": (np.datetime64("2026-05"), DAY.replace(day=1)),
    "numpy time": (np.datetime64("2026-05-17T04:05:06"), TIME),
    "numpy time in nanoseconds": (np.datetime64("2026-05-17T04:05:06", "ns"), TIME),
    "array of a day": (np.array("2026-05-17", "datetime64[D]"), DAY),
    "pandas time": (pd.Timestamp(TIME), TIME),
    "arrow": (pa.scalar("front"), "front"),
    "arrow whole": (pa.scalar(3, pa.int16()), 3),
}
IDS = [10, 20, 30]


def kept(run_dir: Path) -> dict[str, list[Any]]:
    """{fact: the values of the samples in the order of their ids}."""
    table = pq.read_table(run_dir / "facts").sort_by("sample_id")
    assert table["sample_id"].to_pylist() == IDS
    return {name: table[name].to_pylist() for name in table.column_names if name != "sample_id"}


def test_one_for_all_is_as_a_list_of_it(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    for name, (value, _) in SINGLE.items():
        given |= {f"one {name}": value, f"listed {name}": [value] * 3, f"some {name}": [value, None, value]}
    with Run(tmp_path, strict=True) as run:
        run.log_facts(IDS, **given)
    found = kept(tmp_path)
    for name, (_, expected) in SINGLE.items():
        assert found[f"one {name}"] == found[f"listed {name}"] == [expected] * 3
        assert found[f"some {name}"] == [expected, None, expected]
        assert {type(one) for one in found[f"one {name}"]} == {type(expected)}


def test_what_is_missing_for_all_is_no_value(tmp_path: Path) -> None:
    missing = {"none": None, "na": pd.NA, "nat": pd.NaT, "numpy": np.datetime64("NaT")}
    with Run(tmp_path, strict=True) as run:
        run.log_facts(IDS, **missing, **{f"listed_{name}": [one] * 3 for name, one in missing.items()}, there=1)
    found = kept(tmp_path)
    assert found.pop("there") == [1] * 3
    assert len(found) == 8
    assert [None] * 3 == found["none"] == found["numpy"]
    assert {str(values) for values in found.values()} == {"[None, None, None]"}


UNORDERED = {
    "dict": {10: "front", 20: "rear", 30: "left"},
    "counter": collections.Counter("aab"),
    "items": {10: "front", 20: "rear", 30: "left"}.items(),
    "array of a dict": np.array({10: 1, 20: 2, 30: 3}, dtype=object),
    "set": {"x", "y", "z"},
    "frozenset": frozenset("xyz"),
    "bytes": b"abc",
    "numpy bytes": np.bytes_(b"abc"),
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abc"),
    "list of bytes": [b"a", b"b", b"c"],
    "array of bytes": np.array([b"a", b"b", b"c"]),
    "function": len,
    "span": datetime.timedelta(3),
    "numpy span": np.timedelta64(3, "s"),
    "complex": 1 + 2j,
    "array of pairs": np.ones((3, 2)),
    "endless": itertools.repeat("x"),
    "table of two": pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}),
    "meta tensor": torch.empty(3, device="meta"),
}


def test_what_has_no_order_or_is_no_fact_is_refused_by_name(tmp_path: Path) -> None:
    with Run(tmp_path / "strict", strict=True) as run:
        for given in UNORDERED.values():
            with pytest.raises(ValueError, match=r"^camera "):
                run.log_facts(IDS, camera=given)
    assert not list((tmp_path / "strict" / "facts").glob("*"))
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log_facts(IDS, site="north", **{f"a_{at}": given for at, given in enumerate(UNORDERED.values())})
    names = [f"a_{at}" for at in range(len(UNORDERED))]
    assert [str(one.message).split(" ")[1] for one in said] == names
    assert kept(tmp_path / "run") == {"site": ["north"] * 3}
    assert {name: sum(reasons.values()) for name, reasons in run.stats()["refused"].items()} == dict.fromkeys(names, 3)


ORDERED = {
    "list": ["front", "rear", "left"],
    "tuple": ("front", "rear", "left"),
    "array": np.array(["front", "rear", "left"]),
    "objects": np.array(["front", "rear", "left"], dtype=object),
    "a column of an array": np.array([["front"], ["rear"], ["left"]]),
    "series": pd.Series(["front", "rear", "left"], index=[7, 8, 9]),
    "categories": pd.Series(["front", "rear", "left"], dtype="category"),
    "polars": pl.Series(["front", "rear", "left"]),
    "arrow": pa.array(["front", "rear", "left"]),
    "chunks": pa.chunked_array([["front"], ["rear", "left"]]),
    "table of one": pd.DataFrame({"a": ["front", "rear", "left"]}),
    "polars table of one": pl.DataFrame({"a": ["front", "rear", "left"]}),
    "generator": (name for name in ("front", "rear", "left")),
    "values": {10: "front", 20: "rear", 30: "left"}.values(),
    "keys": dict.fromkeys(("front", "rear", "left")).keys(),
    "deque": collections.deque(("front", "rear", "left")),
}


def test_what_has_an_order_is_one_value_a_sample(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        run.log_facts(IDS, **ORDERED)
    assert kept(tmp_path) == {name: ["front", "rear", "left"] for name in ORDERED}


def test_a_column_of_one_number_a_row(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        run.log_facts(IDS, a=np.array([[1], [2], [3]]), b=torch.tensor([[0.5], [1.5], [2.5]]), tags=[["x"], [], ["y"]])
    assert kept(tmp_path) == {"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "tags": ['["x"]', "[]", '["y"]']}


DAYS = [DAY, datetime.date(2024, 2, 29), datetime.date(1969, 12, 31)]


def test_dates_of_numpy_in_a_list_are_those_of_the_array(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    for unit in ("D", "s", "ms", "us", "ns", "h"):
        array = np.array(DAYS, "datetime64[D]").astype(f"datetime64[{unit}]")
        gap = array.copy()
        gap[1] = "NaT"
        objects = np.array([*array, None], dtype=object)[:3]
        given |= {f"array {unit}": array, f"listed {unit}": list(array), f"objects {unit}": objects}
        given |= {f"gap {unit}": gap, f"listed gap {unit}": list(gap)}
    with Run(tmp_path, strict=True) as run:
        run.log_facts(IDS, **given)
    found = kept(tmp_path)
    assert set(found) == set(given)
    for name, values in found.items():
        days = DAYS if name.endswith(" D") else [datetime.datetime.combine(day, datetime.time()) for day in DAYS]
        assert values == ([days[0], None, days[2]] if "gap" in name else days)


def test_nanoseconds_are_not_altered(tmp_path: Path) -> None:
    fine = np.datetime64("2026-05-17T04:05:06.000000007", "ns")
    with Run(tmp_path, strict=True) as run:
        run.log_facts(IDS, array=np.array([fine] * 3), listed=[fine] * 3, one=fine)
    table = pq.read_table(tmp_path / "facts")
    assert {str(table.schema.field(name).type) for name in ("array", "listed", "one")} == {"timestamp[ns]"}
    assert [table[name].cast(pa.int64())[0].as_py() for name in ("array", "listed", "one")] == [fine.astype(int)] * 3


def test_each_fact_has_its_own_reason(tmp_path: Path) -> None:
    """Two facts that are refused alike: the types in the one's words are not the other's."""
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        for _ in range(2):
            run.log_facts(IDS, span=datetime.timedelta(1), number=1j, act=len)
    refused = run.stats()["refused"]
    assert {name: list(reasons.values()) for name, reasons in refused.items()} == {
        name: [6] for name in ("span", "number", "act")
    }
    kinds = {"span": "timedelta", "number": "complex", "act": "builtin_function_or_method"}
    for name, kind in kinds.items():
        (reason,) = refused[name]
        assert reason.startswith(f"{name} ")
        assert kind in reason
        assert [kind in str(one.message) for one in said if f" {name} " in str(one.message)] == [True]
    assert len(said) == 3


def test_a_reason_of_several_names_what_they_have_in_common(tmp_path: Path) -> None:
    """Modes that are none are one kind of reason, told once: no mode stands for the others."""
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        for mode in ("val", "valid", "Eval", "TEST", 1, "val", "val"):
            run.log_samples(sample_id=[1, 2], loss=[0.5, 0.5], mode=mode, epoch=1, step=1)  # type: ignore[arg-type]
        for n in (3, 3, 4):
            run.log_samples(sample_id=[1, 2], loss=[0.5] * n, same=[0.5] * 3, mode="eval", epoch=1, step=1)
    stats = run.stats()
    assert stats["reasons"] == {"mode ... is none of train, eval, test, infer (first: 'val')": 14}
    assert stats["refused"] == {
        "loss": {"loss has ... values for 2 sample ids (first: 3)": 6},
        "same": {"same has 3 values for 2 sample ids": 6},
    }
    assert sum("mode" in str(one.message) for one in said) == 1
    assert json.loads((tmp_path / "run/attempts/000000-r0000.stats").read_text())["reasons"] == stats["reasons"]


MOMENT = datetime.datetime(2025, 12, 31, 18, 30)
"""In UTC."""
UTC_MOMENT = MOMENT.replace(tzinfo=datetime.UTC)


def east(hours: int, minutes: int = 0, seconds: int = 0) -> datetime.datetime:
    offset = datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return UTC_MOMENT.astimezone(datetime.timezone(offset))


def of_zone(zone: str) -> pa.Array:
    return pa.array([MOMENT] * 2).cast(pa.timestamp("us", zone))


ZONED = {
    "+05:30": [east(5, 30)] * 2,
    "+05:45": east(5, 45),
    "-03:30": pd.Series([pd.Timestamp(east(-3, -30))] * 2),
    "+09:30": of_zone("+09:30"),
    "+0530": of_zone("+0530"),
    "UTC+05:30": of_zone("UTC+05:30"),
    "Foo/Bar": pa.chunked_array([of_zone("Foo/Bar")]),
}


@pytest.mark.parametrize("zone", ZONED)
def test_times_of_any_zone_are_the_same_moments(tmp_path: Path, zone: str) -> None:
    said = f"fact at holds times of the zone {re.escape(zone)}: they are kept in UTC"
    with Run(tmp_path / "run") as run:
        with pytest.warns(UserWarning, match=said):
            run.log_facts([1, 2], at=ZONED[zone], camera="left")
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    assert told(tmp_path / "run") == [{"at": UTC_MOMENT, "camera": "left"}] * 2


def test_zones_of_which_readers_know_the_name_stay(tmp_path: Path) -> None:
    with warnings.catch_warnings(), Run(tmp_path / "run", strict=True) as run:
        warnings.simplefilter("error")
        run.log_facts([1, 2], hours=[east(2)] * 2, berlin=of_zone("Europe/Berlin"), seconds=[east(5, 30, 7)] * 2)
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    for facts in told(tmp_path / "run"):
        assert set(facts.values()) == {UTC_MOMENT}
        assert facts["hours"].utcoffset() == datetime.timedelta(hours=2)
        assert facts["berlin"].utcoffset() == datetime.timedelta(hours=1)


def test_a_file_with_times_of_any_zone_is_kept(tmp_path: Path) -> None:
    zones = {f"at{number}": of_zone(zone) for number, zone in enumerate(ZONED)}
    pq.write_table(pa.table({"sample_id": [1, 2], "camera": ["left", "right"], **zones}), tmp_path / "facts.parquet")
    with pytest.warns(UserWarning, match=r"at0 of facts.parquet holds times of the zone \+05:30"):
        run = Run(tmp_path / "run", facts=tmp_path / "facts.parquet")
    run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    run.close()
    expected = dict.fromkeys(zones, UTC_MOMENT)
    assert told(tmp_path / "run") == [{"camera": camera, **expected} for camera in ("left", "right")]


def test_what_is_no_file_of_facts_takes_no_fact_with_it(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        with pytest.warns(UserWarning, match="facts= takes a CSV, Parquet or JSON-lines file, not list"):
            run.log_facts([1, 2], facts=["a", "b"], camera=["left", "right"], self=["me", "you"])
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    assert told(tmp_path / "run") == [{"camera": "left", "self": "me"}, {"camera": "right", "self": "you"}]
    assert run.stats()["records_dropped"] == 2


def test_a_strict_run_raises_of_what_is_no_file_of_facts(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run, pytest.raises(ValueError, match="facts= takes a CSV"):
        run.log_facts([1, 2], facts=["a", "b"], camera=["left", "right"])


def told(folder: Path) -> list[dict[str, Any]]:
    """The facts of samples 1 and 2 as questions have them."""
    frame = open_reader(RunLayout(folder)).facts.frame.sort("sample_id")
    assert frame["sample_id"].to_list() == [1, 2]
    return frame.drop("sample_id").to_dicts()


def test_times_of_several_zones_in_one_call_are_the_same_moments_in_utc(tmp_path):
    """Arrow alone would show all of them in the zone of the first; times of one zone keep it."""
    zones = ("America/New_York", "Europe/Berlin", "Asia/Tokyo", "UTC")
    taken = [datetime.datetime(2026, 3, 1, 12, tzinfo=ZoneInfo(zone)) for zone in zones]
    local = [datetime.datetime(2026, month, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")) for month in (1, 3, 7, 9)]
    with Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3, 4], taken=taken, local=local)
        run.log_samples(sample_id=[1, 2, 3, 4], loss=[1.0] * 4, mode="eval", epoch=1)
    frame = open_reader(RunLayout(tmp_path / "run")).facts.frame.sort("sample_id")
    assert (frame["taken"].dtype.time_zone, frame["local"].dtype.time_zone) == ("UTC", "Europe/Berlin")
    assert frame["taken"].to_list() == taken
    assert frame["local"].to_list() == local


def test_lists_and_objects_keep_their_own_json_whatever_lies_beside_them(tmp_path: Path) -> None:
    given: dict[str, list[Any]] = {
        "att": [{"weather": "rain"}, {"lane": 3}, {}],
        "changing": [{"a": 1}, {"a": "x"}, {"a": [1, None]}],
        "deep": [{"p": {"q": 1}}, {"p": {"r": 2}}, {"p": None}],
        "objects": [[{"x": 1}], [{"y": 2}], []],
        "order": [{"b": 1, "a": 2}, {"a": 2, "b": 1}, {"b": 1}],
        "mixed": [[1, "a"], [2.5], [None]],
        "numbers": [[1], [2.5], [2**70]],
        "truth": [[True, 1], [0], [False]],
        "beside": [{"a": 1}, 3, "front"],
    }
    others: dict[str, tuple[list[Any], list[Any]]] = {
        "tuple": ([(1, 2), [3, 4], {6, 5}], [[1, 2], [3, 4], [5, 6]]),
        "set": ([{"b", "a"}, {3, 20, 100}, set()], [["a", "b"], [3, 20, 100], []]),
        "array": ([np.array([1, 2]), np.array([0.5, 1.5]), np.array(["a", "b"])], [[1, 2], [0.5, 1.5], ["a", "b"]]),
        "within": (
            [{"a": np.float64(0.5)}, {"a": np.arange(2)}, {"a": DAY}],
            [{"a": 0.5}, {"a": [0, 1]}, {"a": "2026-05-17"}],
        ),
    }
    with Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3], **given, **{name: values for name, (values, _) in others.items()})
        run.log_samples(sample_id=[1, 2, 3], loss=[1.0] * 3, mode="eval", epoch=1)
    assert run.stats()["refused"] == {}
    frame = open_reader(RunLayout(tmp_path / "run")).facts.frame.sort("sample_id")
    assert frame["beside"].to_list() == ['{"a": 1}', "3", "front"]
    del given["beside"]
    for name, values in {**given, **{name: values for name, (_, values) in others.items()}}.items():
        assert frame[name].to_list() == [json.dumps(value) for value in values], name


def test_an_object_that_has_no_json_is_left_out_alone(tmp_path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with Run(tmp_path / "run") as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.log_facts([1, 2, 3, 4], att=[{"a": 1}, {(1, 2): 3}, circle, deep], camera="left")
        run.log_samples(sample_id=[1, 2, 3, 4], loss=[1.0] * 4, mode="eval", epoch=1)
    assert sum(run.stats()["refused"]["att"].values()) == 3
    frame = open_reader(RunLayout(tmp_path / "run")).facts.frame.sort("sample_id")
    assert frame["att"].to_list() == ['{"a": 1}', None, None, None]
    assert frame["camera"].to_list() == ["left"] * 4
