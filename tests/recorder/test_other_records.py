"""Scalars, thumbnails, inputs, tables, checkpoints, and the active run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import xaicli
from xaicli import parquet
from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.maintenance.doctor import examine
from xaicli.queries.recorded import recorded_scalars
from xaicli.reader import open_reader
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.parts import append_table
from xaicli.recorder.run import Run


def table(run_dir: Path, folder: str) -> list[dict[str, object]]:
    files = sorted((run_dir / folder).glob("*.parquet"))
    return [row for file in files for row in parquet.read(file).to_pylist()]


def test_scalars_take_their_axis_from_the_keys(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log({"lr": 0.5})
        run.log({"lr": torch.tensor(0.25), "acc": np.float32(1), "epoch": 3})
        run.log({"lr": 1, "step": 70, "epoch": 4})
        run.log({"lr": True, "iteration": 9})
        run.state.mode, run.state.epoch_idx = "eval", 5
        run.log({"acc": float("nan")})
    rows = table(tmp_path / "run", "scalars")
    assert [(r["key"], r["value"], r["axis"], r["step"], r["epoch"]) for r in rows[:5]] == [
        ("lr", 0.5, "counter", 0, None),
        ("lr", 0.25, "epoch", 3, 3),
        ("acc", 1.0, "epoch", 3, 3),
        ("lr", 1.0, "step", 70, 4),
        ("lr", 1.0, "iteration", 9, None),
    ]
    assert (rows[5]["mode"], rows[5]["epoch"], rows[5]["axis"], rows[5]["step"]) == ("eval", 5, "counter", 4)
    with Run(tmp_path / "run", strict=True) as run, pytest.raises(ValueError, match="lr has 2 values"):
        run.log({"lr": [1.0, 2.0]})


_KILLED = """
import os, signal, sys
from xaicli import files
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
for step in range(5):
    run.log({"lr": step / 4, "spoilt": float("nan"), "step": step})
    if step == 2:
        files.reached = lambda point: point == sys.argv[2] and os.kill(os.getpid(), signal.SIGKILL)
        run.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("point", "steps"), [("", 5), ("opened", 3), ("renamed", 3), ("folder synced", 3)])
def test_scalars_survive_a_killed_process(tmp_path: Path, point: str, steps: int) -> None:
    run_dir = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", _KILLED, run_dir, point], timeout=60, check=False)
    assert killed.returncode == -9
    with (RunLayout(run_dir).wal / "a000000-r0000-00000007.scalars").open("wb") as file:
        file.write(b"12345678 just being writ")
    live = recorded_scalars(open_reader(RunLayout(run_dir))).filter(pl.col("key") == "lr")
    assert live.select("step", "value").rows() == [(step, step / 4) for step in range(steps)]
    Run(run_dir).close()
    assert not RunLayout(run_dir).wal.exists()
    kept = [(row["step"], row["value"]) for row in table(run_dir, "scalars") if row["key"] == "lr"]
    assert kept == [(step, step / 4) for step in range(steps)]


def test_damaged_scalars_of_a_killed_training_are_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    subprocess.run([sys.executable, "-c", _KILLED, run_dir, ""], timeout=60, check=False)
    segment = next(path for path in RunLayout(run_dir).wal.glob("*.seg") if b"0.75" in path.read_bytes())
    segment.write_bytes(segment.read_bytes().replace(b"0.75", b"0.76"))
    reader = open_reader(RunLayout(run_dir))
    assert sorted(recorded_scalars(reader).filter(pl.col("key") == "lr")["step"]) == [0, 1, 2]
    assert reader.damaged == (f"wal/{segment.name}",)
    (finding,) = examine(RunLayout(run_dir)).findings
    assert finding.path == f"wal/{segment.name}"


def test_scalars_of_a_killed_training_of_format_1_are_read(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    Run(layout.root).close()
    text = json.dumps([["lr", "", "", None, 3, "step", 0.25, 0, 0]]).encode()
    layout.wal.mkdir()
    (layout.wal / "a000000-r0000-00000000.scalars").write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    assert recorded_scalars(open_reader(layout)).select("step", "value").rows() == [(3, 0.25)]
    Run(layout.root).close()
    assert recorded_scalars(open_reader(layout)).select("step", "value").rows() == [(3, 0.25)]
    assert not layout.wal.exists()


def test_one_bad_scalar_costs_itself(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log({"lr": 1.0, "step": 1, "bad": "text"})
        run.log({"lr": 8.0, "step": 2**70})
        run.log({"lr": 9.0, "epoch": 2**31})
        run.log({"lr": 2.0, "step": 2, "val": {"acc": 0.5}})
    stored = [(row["value"], row["axis"], row["step"]) for row in table(tmp_path / "run", "scalars")]
    assert stored == [(1.0, "step", 1), (8.0, "counter", 1), (9.0, "counter", 2), (2.0, "step", 2)]
    assert run.stats()["records_dropped"] == 2
    assert set(run.stats()["altered"]) == {"step", "epoch"}
    assert len(said) == 4
    assert "the scalars beside it are kept without it" in str(said[2].message)
    assert "val is a mapping; a scalar is one number, under a name such as 'val/acc'" in str(said[3].message)
    assert said[0].filename == __file__


def test_scalars_without_a_time_take_the_training_step_or_go_on_counting(tmp_path: Path) -> None:
    for values in ([1.0, 2.0], [3.0]):
        with Run(tmp_path / "run", strict=True) as run:
            for value in values:
                run.log({"acc": value})
            for _ in run.steps(range(2)):
                run.log({"lr": value})
    rows = [(row["key"], row["axis"], row["step"], row["value"]) for row in table(tmp_path / "run", "scalars")]
    counted = [row for row in rows if row[0] == "acc"]
    assert [row[1:] for row in counted] == [("counter", 0, 1.0), ("counter", 1, 2.0), ("counter", 2, 3.0)]
    assert [row[1:] for row in rows if row[0] == "lr"][:2] == [("step", 1, 2.0), ("step", 2, 2.0)]


def test_facts_of_samples_are_kept(tmp_path: Path) -> None:
    listed = tmp_path / "facts.csv"
    listed.write_text("sample_id,source\n1,web\n2,lab\n")
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5])
        run.log_facts([1, 2], path=["a.png", "b.png"], taken=[date(2026, 1, 2)] * 2, camera="left")
        run.log_facts([1], path=["c.png"], width=640)
        run.log_facts(facts=listed)
        with pytest.raises(ValueError, match="path has 1 values for 2 sample ids"):
            run.log_facts([1, 2], path=["a.png"])
        with pytest.raises(ValueError, match="sample_id of facts must be whole numbers"):
            run.log_facts(["one"], path=["a.png"])
    found = table(tmp_path / "run", "facts")
    assert [(row["sample_id"], row.get("path"), row.get("width")) for row in found if row.get("path")] == [
        *[(1, "a.png", None), (2, "b.png", None), (1, "c.png", 640)]
    ]
    assert [(row["sample_id"], row["source"]) for row in found if row.get("source")] == [(1, "web"), (2, "lab")]
    assert found[0 if found[0].get("taken") else -1]["taken"] == date(2026, 1, 2)


def test_a_picture_or_input_of_another_kind_costs_itself(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log_images([1, 2], np.zeros((2, 4, 4, 3), np.uint8))
        run.log_images(["three"], np.zeros((1, 4, 4, 3), np.uint8))
        run.log_inputs([1, 2], np.ones((2, 3), np.float32), label=[0, 1])
        run.log_inputs([3], np.ones((1, 3), np.float32), label=["cat"])
        run.log_samples(sample_id=[1], loss=[1.0])
    assert [row["sample_id"] for row in table(tmp_path / "run", "media")] == [1, 2]
    inputs = [(row["sample_id"], row["label"]) for row in table(tmp_path / "run", "inputs")]
    assert inputs == [(1, 0), (2, 1), (3, None)]
    assert len(said) == 2


def test_thumbnails_of_any_shape_become_small_pictures(tmp_path: Path) -> None:
    chequered = np.indices((4, 4)).sum(0) % 2
    with Run(tmp_path / "run", strict=True) as run:
        run.log_images([1], chequered[None].astype(np.float32))
        run.log_images([2], torch.full((1, 3, 8, 6), 255, dtype=torch.uint8))
        run.log_images([3, 4], [np.zeros((200, 100, 3), np.uint8), np.full((5, 5, 4), 7, np.uint8)])
        run.log_images([5], np.array([[-1.0, 1.0]]))
        with pytest.raises(ValueError, match="2 pictures for 1 sample ids"):
            run.log_images([1], np.zeros((2, 4, 4, 3), np.uint8))
        with pytest.raises(ValueError, match="1, 3 or 4 channels"):
            run.log_images([1], np.zeros((1, 7, 9, 8), np.uint8))
    rows = table(tmp_path / "run", "media")
    assert [(r["sample_id"], r["height"], r["width"], r["channels"]) for r in rows] == [
        *[(1, 4, 4, 1), (2, 8, 6, 3), (3, 96, 48, 3), (4, 5, 5, 4), (5, 1, 2, 1)]
    ]
    assert np.frombuffer(rows[0]["pixels"], np.uint8).reshape(4, 4).tolist() == (chequered * 255).tolist()  # type: ignore[call-overload]
    assert rows[4]["pixels"] == b"\x00\xff"


def pixels(row: dict[str, object]) -> list[int]:
    return list(row["pixels"])  # type: ignore[call-overload, no-any-return]


def test_pictures_are_shown_by_what_their_type_says(tmp_path: Path) -> None:
    given = [
        np.array([[0, 1, 128, 255]], np.uint8),
        np.array([[0, 257, 65535, 32768]], np.uint16),
        np.array([[0, 1, 128, 255]], np.int64),
        np.array([[True, False]]),
        np.array([[0.0, 0.5, 1.0]]),
    ]
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run", strict=True) as run:
        warnings.simplefilter("always")
        run.log_images([1, 2, 3, 4, 5], given)
    assert [pixels(row) for row in table(tmp_path / "run", "media")] == [
        *[[0, 1, 128, 255], [0, 1, 255, 128], [0, 1, 128, 255], [255, 0], [0, 128, 255]]
    ]
    assert said == []


def test_pictures_kept_otherwise_than_given_are_told_once_and_counted(tmp_path: Path) -> None:
    holed = np.array([[0.0, np.nan, 1.0, np.inf]])
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log_images([1, 2], [holed, holed])
        run.log_images([3, 4], [np.full((2, 2), np.nan), np.zeros((0, 5, 3), np.uint8)])
        run.log_images([5, 6], [np.array([[-2.0, 0.0, 2.0]]), np.array([[0, 500, 1000]])])
        run.log_images([7], np.zeros((1, 3, 8, 3), np.uint8))
        run.log_images([8], np.zeros((1, 3, 8, 1), np.uint8))
    found = table(tmp_path / "run", "media")
    assert [(row["sample_id"], pixels(row)) for row in found[:2]] == [(1, [0, 0, 255, 0]), (2, [0, 0, 255, 0])]
    assert [(row["sample_id"], pixels(row)) for row in found[2:4]] == [(5, [0, 128, 255]), (6, [0, 128, 255])]
    assert [(r["sample_id"], r["height"], r["width"], r["channels"]) for r in found[4:]] == [(7, 3, 8, 3), (8, 3, 8, 1)]
    assert run.stats()["refused"] == {
        "media": {
            "pictures have values that are NaN or infinite, which are shown as black": 2,
            "images has a picture without a finite value": 1,
            "images has a picture of shape (0, 5, 3), without a pixel": 1,
        }
    }
    assert run.stats()["records_dropped"] == 2
    told = [str(one.message) for one in said]
    assert len(told) == 5
    assert "stretched each from its smallest to its largest" in told[3]
    assert "(3, 8, 3) may be (H, W, C) or (C, H, W): it is taken for (H, W, C)" in told[4]
    with Run(tmp_path / "strict", strict=True) as strict, pytest.raises(ValueError, match="NaN or infinite"):
        strict.log_images([1], holed[None])


def test_a_time_may_stand_beside_the_scalars(tmp_path: Path) -> None:
    given = {"loss": 0.5}
    with xaicli.init(tmp_path / "run", strict=True):
        xaicli.log(given, step=3)
        xaicli.log(given, epoch=2, mode="eval")
        xaicli.log({"loss": 1.5, "step": 1}, step=torch.tensor(4), epoch=2)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"step 1\.5 is no whole number"):
            xaicli.log(given, step=1.5)  # type: ignore[arg-type]
    assert given == {"loss": 0.5}
    stored = [
        (row["axis"], row["step"], row["epoch"], row["mode"], row["value"])
        for row in table(tmp_path / "run", "scalars")
    ]
    assert stored == [("step", 3, None, "", 0.5), ("epoch", 2, 2, "eval", 0.5), ("step", 4, 2, "", 1.5)]


@pytest.mark.parametrize("make", [int, np.int64, torch.tensor, lambda n: np.array([n])])
def test_whole_scalars_are_exact_or_told(tmp_path: Path, make: Callable[[int], object]) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log({"seen": make(2**53), "even": make(2**60), "step": 1})
        assert said == []
        run.log({"seen": make(2**53 + 1), "step": 2})
        run.log({"seen": make(-(2**53) - 3), "step": 3})
    stored = [(row["key"], row["value"]) for row in table(tmp_path / "run", "scalars")]
    assert stored == [("seen", 2.0**53), ("even", 2.0**60), ("seen", 2.0**53), ("seen", -(2.0**53) - 4)]
    assert len(said) == 1
    assert "seen 9007199254740993 is beyond 2^53: it is rounded to double precision" in str(said[0].message)
    assert list(run.stats()["refused"]["seen"].values()) == [2]
    assert run.stats()["records_dropped"] == 0


def test_inputs_come_back_bit_for_bit(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    with Run(tmp_path / "run", strict=True) as run:
        run.log_inputs(["a", "b"], {"image": x, "tokens": tokens}, label=["cat", "dog"])
        with pytest.raises(ValueError, match="label has 2 values for 1 sample ids"):
            run.log_inputs(["a"], x[:1], label=["cat", "dog"])
    rows = table(tmp_path / "run", "inputs")
    assert [(r["sample_id"], r["name"], r["label"]) for r in rows] == [
        *[("a", "image", "cat"), ("b", "image", "dog"), ("a", "tokens", "cat"), ("b", "tokens", "dog")]
    ]
    for row, expected in zip(rows, [*x, *tokens.numpy()], strict=True):
        restored = np.frombuffer(row["data"], row["dtype"]).reshape(row["shape"])  # type: ignore[call-overload]
        assert restored.dtype == expected.dtype
        assert (restored == expected).all()


@pytest.mark.parametrize(
    ("options", "label", "kept"),
    [
        ({}, [0, -100, 2], [0, None, 2]),
        ({}, np.array([0.0, -100.0, np.nan]), [0, None, None]),
        ({"ignore_label": 255}, np.array([0, 255, 2], np.uint8), [0, None, 2]),
        ({"ignore_label": 255}, [0, -100, 2], [0, -100, 2]),
        ({"ignore_label": None}, [0, -100, 2], [0, -100, 2]),
        ({"ignore_label": "none"}, ["a", "none", "b"], ["a", None, "b"]),
        ({"ignore_label": 1, "label_names": ["a", "none"]}, ["a", "none", "b"], ["a", None, "b"]),
        ({"task": "multilabel"}, [[0, 1], [-100], [2]], [[0, 1], None, [2]]),
        ({"task": "multilabel"}, np.array([[0, 1], [-100, -100], [1, 1]]), [[1], None, [0, 1]]),
        ({"task": "regression"}, [0.5, -100.0, 2.0], [0.5, -100.0, 2.0]),
        ({"task": "regression", "ignore_label": -1}, [0.5, -1.0, 2.0], [0.5, None, 2.0]),
    ],
)
def test_a_label_of_inputs_that_stands_for_none_is_none(
    tmp_path: Path, options: dict[str, Any], label: Any, kept: list[object]
) -> None:
    with Run(tmp_path / "run", strict=True, **options) as run:
        run.log_inputs([1, 2, 3], np.ones((3, 2), np.float32), label=label)
    assert [row["label"] for row in table(tmp_path / "run", "inputs")] == kept


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(np.float64).max, reason="long double is double here")
def test_a_number_beyond_double_precision_is_missing_and_told(tmp_path: Path) -> None:
    huge = np.longdouble(10) ** 400
    given = np.array([1.5, huge, np.inf, np.nan], np.longdouble)
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log_samples(sample_id=range(4), margin=given, loss=[1.0] * 4, mode="eval", epoch=1)
        run.log_samples(sample_id=range(4), margin=list(given), loss=[1.0] * 4, mode="eval", epoch=2)
        run.log({"huge": huge, "plain": np.longdouble(1.5), "step": 1})
    stored = xaicli.open_run(tmp_path / "run").scan(mode="all").sort("epoch", "sample_id").collect()["margin"].to_list()
    assert str(stored) == str([1.5, None, np.inf, np.nan] * 2)
    assert run.stats()["refused"] == {
        "margin": {"margin is beyond double precision": 2},
        "huge": {"huge is beyond double precision": 1},
    }
    assert [str(one.message).partition(";")[0] for one in said] == [
        "xai: margin is beyond double precision",
        "xai: huge is beyond double precision",
    ]
    assert [(row["key"], row["value"]) for row in table(tmp_path / "run", "scalars")] == [("plain", 1.5)]


def test_tables_keep_rows_and_schemas_of_every_call(tmp_path: Path) -> None:
    field = pa.field("box", pa.float64(), metadata={"xai_schema": '{"kind": "box"}'})
    with Run(tmp_path / "run") as run:
        first = append_table(run.layout, run.writer, "a/b .", pa.table({"box": [1.0]}, schema=pa.schema([field])))
        second = append_table(run.layout, run.writer, "a/b .", pa.table({"box": [2.0], "more": ["x"]}))
    assert first.parent == second.parent == tmp_path / "run" / "tables" / "a%2Fb%20%2E"
    assert [parquet.read(path)["box"].to_pylist() for path in (first, second)] == [[1.0], [2.0]]
    assert json.loads((first.parent / "schema.json").read_text())["box"] == {"kind": "box"}


def test_the_active_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no active run"):
        xaicli.log({"lr": 1.0})
    first = xaicli.init(tmp_path / "first")
    xaicli.log({"lr": 1.0})
    second = xaicli.init(tmp_path / "second")
    assert first.is_closed
    xaicli.log({"lr": 2.0})
    second.close()
    with pytest.raises(ValueError, match="no active run"):
        xaicli.log({"lr": 1.0})
    assert [row["value"] for name in ("first", "second") for row in table(tmp_path / name, "scalars")] == [1.0, 2.0]


def test_bad_scalars_and_pictures_do_not_reach_training(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        with pytest.warns(RecorderWarning, match="lr is not numeric"):
            run.log({"lr": "high"})
        with pytest.warns(RecorderWarning, match="images"):
            run.log_images([1], "no picture")
        with pytest.warns(RecorderWarning, match="inputs"):
            run.log_inputs([1], [["text"]])
    assert (run.stats()["records_dropped"], run.stats()["rows_dropped"]) == (3, 0)


SAVED = {
    "checkpoint": lambda run, thing: run.save_checkpoint(thing),
    "best": lambda run, thing: run.keep_best(thing, 0.5, metric="loss"),
    "state": lambda run, thing: run.state.save_state(models={"net": thing}),
}


@pytest.mark.filterwarnings("ignore:the checkpoint holds no graph")
@pytest.mark.parametrize("what", SAVED)
@pytest.mark.parametrize("thing", [{"weight": torch.ones(2)}, 3, None, "model"])
def test_a_model_that_is_none_is_told_and_the_training_goes_on(tmp_path: Path, what: str, thing: object) -> None:
    save: Callable[[Run, object], Path | None] = SAVED[what]
    with Run(tmp_path / "run") as run:
        with pytest.warns(RecorderWarning, match="cannot be written"):
            assert save(run, thing) is None
        assert run.stats()["records_dropped"] == 1
        assert save(run, torch.nn.Linear(2, 1)) is not None
    with Run(tmp_path / "strict", strict=True) as run, pytest.raises((XaiError, ValueError, TypeError)):
        save(run, thing)


@pytest.mark.filterwarnings("ignore:the checkpoint holds no graph")
@pytest.mark.parametrize("odd", [{"keep": 0}, {"better": "best"}])
def test_arguments_of_what_is_kept_are_told(tmp_path: Path, odd: dict[str, Any]) -> None:
    net = torch.nn.Linear(2, 1)
    with Run(tmp_path / "run") as run:
        kept = run.keep_best(net, 0.5)
        with pytest.warns(RecorderWarning, match="best checkpoint by loss cannot be written: .* must be"):
            assert run.keep_best(net, 0.25, **odd) is None
        with pytest.warns(RecorderWarning, match=r"checkpoint ckpt.pt cannot be written"):
            assert run.save_checkpoint(net, 3) is None  # type: ignore[arg-type]
        if "keep" in odd:
            with pytest.warns(RecorderWarning, match="training state cannot be written: keep must be at least 1"):
                assert run.state.save_state(**odd) is None
    assert kept is not None
    assert kept.exists()
    with Run(tmp_path / "strict", strict=True) as run, pytest.raises(ValueError, match="must be"):
        run.keep_best(net, 0.5, **odd)


def test_a_checkpoint_lies_in_the_run_and_knows_its_labels(tmp_path: Path) -> None:
    from xaicli.checkpoint.load import load_checkpoint

    model = torch.nn.Linear(3, 2)
    with Run(tmp_path / "run", label_names=["no", "yes"], strict=True) as run:
        path = run.save_checkpoint(model, example_inputs=torch.zeros(2, 3))
    assert path == tmp_path / "run" / "checkpoints" / "ckpt.pt"
    loaded = load_checkpoint(path)
    assert list(loaded.facts.label_names or ()) == ["no", "yes"]
    x = torch.randn(4, 3)
    assert torch.allclose(loaded.model(x), model(x))


def test_what_has_a_state_and_is_no_model_replaces_no_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Run(tmp_path / "run") as run:
        path = run.save_checkpoint(model, example_inputs=torch.ones(2, 2))
        assert path is not None
        before = path.read_bytes()
        for one in (optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)):
            with pytest.warns(RecorderWarning, match=f"the model is a {type(one).__name__}, no torch.nn.Module"):
                assert run.save_checkpoint(one) is None  # type: ignore[arg-type]
        assert path.read_bytes() == before


def test_the_index_of_a_frame_that_has_a_name_is_a_column_of_a_table(tmp_path: Path) -> None:
    frame = pd.DataFrame({"example_id": [5, 7, 5, 9], "v": [1.0, 1.0, 5.0, 3.0]})
    with Run(tmp_path / "run", strict=True) as run:
        run.add_metrics_data(frame.groupby("example_id").mean(), name="by_id")
    found = pl.read_parquet(tmp_path / "run" / "tables" / "by_id" / "*.parquet").sort("example_id")
    assert found.rows() == [(5, 3.0), (7, 1.0), (9, 3.0)]


def test_pictures_and_inputs_behind_a_loop_are_of_no_mode(tmp_path: Path) -> None:
    """In a loop they are of it; behind it of none, also in its epoch; a mode that is set counts until it is changed, or
    a training begins anew or goes on.
    """
    with Run(tmp_path / "run", strict=True) as run:
        numbers = iter(range(100))

        def log() -> None:
            n = next(numbers)
            run.log_inputs([n], np.ones((1, 2), np.float32))
            run.log_images([n], np.zeros((1, 4, 4), np.uint8))

        log()
        for _ in run.epochs(1):
            for _ in run.steps([0], mode="train"):
                log()
                for _ in run.steps([0], mode="eval", ds_id="night"):
                    log()
                log()
            log()
            with contextlib.suppress(ValueError):
                for _ in run.steps([0], mode="test"):
                    raise ValueError
        log()
        run.state.mode, run.state.ds_id = "eval", "day"
        log()
        for _ in run.steps([0], mode="train"):
            log()
        log()
        run.state.save_state(dir=tmp_path / "state")
        run.state.reset("anew")
        for anew in (True, False):
            if not anew:
                run.state.load_state(dir=tmp_path / "state")
            for _ in run.steps([0], mode="test"):
                log()
            log()
    none, day = ("", ""), ("eval", "day")
    expected = [none, ("train", ""), ("eval", "night"), ("train", ""), none, none, day, ("train", ""), day]
    expected += [("test", ""), none] * 2
    for folder in ("inputs", "media"):
        rows = pl.read_parquet(tmp_path / "run" / folder / "*.parquet").sort("sample_id")
        assert list(rows.select("mode", "ds_id").iter_rows()) == expected, folder
