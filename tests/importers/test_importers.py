"""Runs that other programs recorded, equal value by value once they are imported."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli
from xaicli.api.runs import scalars
from xaicli.testing import Row, RowsContract, ScalarsContract, record

Xai = Callable[..., tuple[int, str, str]]
Logged = list[tuple[int, dict[str, float]]]


def values(run: Path) -> dict[tuple[int, str], float]:
    return {(row["step"], row["key"]): row["value"] for row in scalars(run).data.to_dicts()}


def table(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


class TestRecorder(RowsContract):
    def written(self, rows: list[Row], folder: Path) -> Path:
        return record(rows, folder / "run")


class TestCsvRows(RowsContract):
    def written(self, rows: list[Row], folder: Path) -> Path:
        header = ["pass" if name == "eval_pass" else name for name in rows[0]]
        cells = [["" if value is None else value for value in row.values()] for row in rows]
        path = table(folder / "rows.csv", header, cells)
        return Path(xaicli.import_run(path, folder / "run").answer.run)


class TestCsvScalars(ScalarsContract):
    def written(self, logged: Logged, folder: Path) -> Path:
        keys = sorted({key for _, found in logged for key in found})
        rows = [[step, *(found.get(key, "") for key in keys)] for step, found in logged]
        path = table(folder / "metrics.csv", ["step", *keys], rows)
        return Path(xaicli.import_run(path, folder / "run").answer.run)


class TestTensorBoard(ScalarsContract):
    def written(self, logged: Logged, folder: Path) -> Path:
        tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
        with tensorboard.SummaryWriter(str(folder / "events")) as writer:
            for step, found in logged:
                for key, value in found.items():
                    writer.add_scalar(key, value, step)
        return Path(xaicli.import_run(folder / "events", folder / "run").answer.run)


class TestTrackio(ScalarsContract):
    """A project as trackio 0.43 makes it; `test_what_trackio_writes` asks the package itself, where it is installed."""

    def written(self, logged: Logged, folder: Path) -> Path:
        project(folder / "p.db", [("1", "first", step, found) for step, found in logged])
        return Path(xaicli.import_run(folder / "p.db", folder / "run").answer.run)


def project(path: Path, rows: list[tuple[str, str, int, dict[str, Any]]], config: str = "{}") -> Path:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, timestamp TEXT NOT NULL, "
            "run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL, log_id TEXT, space_id TEXT)"
        )
        base.execute("CREATE TABLE configs (run_id TEXT NOT NULL, run_name TEXT NOT NULL, config TEXT NOT NULL)")
        for run, name, step, found in rows:
            names = {math.inf: "Infinity", -math.inf: "-Infinity"}
            plain = {k: "NaN" if v != v else names.get(v, v) if isinstance(v, float) else v for k, v in found.items()}
            base.execute(
                "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?, '', ?, ?, ?)",
                (run, name, step, json.dumps(plain).encode()),
            )
        base.execute("INSERT INTO configs VALUES ('1', 'first', ?)", (config.encode(),))
    return path


class TestWandb(ScalarsContract):
    """Frames made here; `test_what_wandb_writes` asks the package itself, where it is installed."""

    def written(self, logged: Logged, folder: Path) -> Path:
        messages = [history({"_step": step, **found, "_timestamp": 1.5}) for step, found in logged]
        path = folder / "offline-run-1" / "run-x.wandb"
        path.parent.mkdir()
        path.write_bytes(framed([run_message("x", {"lr": 0.1}), *messages]))
        return Path(xaicli.import_run(path.parent, folder / "run").answer.run)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def items(found: dict[str, Any]) -> bytes:
    parts = []
    for key, value in found.items():
        parts.append(field(1, field(2, key.encode()) + field(16, json.dumps(value).encode())))
    return b"".join(parts)


def history(found: dict[str, Any]) -> bytes:
    # A number that is no field of ours stands in front: `num` of the record.
    return varint(1 << 3) + varint(300) + field(2, items(found))


def run_message(name: str, config: dict[str, Any]) -> bytes:
    return field(17, field(1, b"id") + field(4, items(config)) + field(8, name.encode()))


def framed(messages: list[bytes]) -> bytes:
    """LevelDB's log format: blocks of 32 KiB, a message in one frame or in a first, middle ones and a last."""
    out = b":W&B\xe1\xbe\x00"
    for message in messages:
        first = True
        while first or message:
            room = 32_768 - len(out) % 32_768
            if room < 7:
                out += bytes(room)
                continue
            part, message = message[: room - 7], message[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not message]
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return out


def test_a_message_over_several_blocks_of_wandb(tmp_path: Path) -> None:
    wide = {f"key {n}": n / 7 for n in range(5_000)}
    path = tmp_path / "run-x.wandb"
    path.write_bytes(framed([history({"_step": 3, **wide}), history({"_step": 4, "loss": 0.25})]))
    assert len(path.read_bytes()) > 3 * 32_768
    result = xaicli.import_run(path, tmp_path / "run")
    assert values(tmp_path / "run") == {**{(3, key): value for key, value in wide.items()}, (4, "loss"): 0.25}
    assert result.answer.warnings == ()


def test_a_damaged_log_of_wandb_is_read_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    good, last = framed([history({"_step": 0, "loss": 1.0})]), framed([history({"_step": 1, "loss": 2.0})])[7:]
    path.write_bytes(good + last[:-1] + b"#")
    result = xaicli.import_run(path, tmp_path / "run")
    assert values(tmp_path / "run") == {(0, "loss"): 1.0}
    assert result.answer.warnings == (f"x: run-x.wandb is damaged: its last {len(last)} bytes are left out",)


def test_what_is_no_number_of_wandb_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    logged = {
        "loss": 1.5,
        "note": "text",
        "image": {"_type": "image-file", "path": "a.png"},
        "ids": [1, 2],
        "none": None,
    }
    nested = {"val": {"acc": 0.5, "deep": {"er": 2}}, "epoch": 0.75, "step": 7}
    path.write_bytes(
        framed([run_message("my run", {"net": {"depth": 3}, "_wandb": {}}), history({"_step": 9, **logged, **nested})])
    )
    result = xaicli.import_run(path, tmp_path / "run")
    assert values(tmp_path / "run") == {
        (9, "loss"): 1.5,
        (9, "val.acc"): 0.5,
        (9, "val.deep.er"): 2.0,
        (9, "step_logged"): 7.0,
    }
    assert result.data["left_out"][0] == "1 texts, 1 image-file, 1 lists"
    assert any("1 values of epoch are no whole number" in text for text in result.answer.warnings)
    manifest = json.loads((tmp_path / "run" / "xai.json").read_text())
    assert (manifest["name"], manifest["config"]) == ("my run", {"net": {"depth": 3}})
    assert manifest["environment"]["imported"]["kind"] == "wandb"


def test_what_wandb_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = wandb.init(
        project="p", dir=str(tmp_path), config={"lr": 0.1}, name="my run", settings=wandb.Settings(silent=True)
    )
    for step in range(5):
        run.log({"loss": 1 / (step + 3), "nested": {"a": step}, "odd": math.inf if step == 2 else math.nan})
    run.log({"late": 0.5}, step=10)
    run.finish()
    result = xaicli.import_run(tmp_path / "wandb", tmp_path / "run")
    expected = {(step, "loss"): 1 / (step + 3) for step in range(5)} | {(step, "nested.a"): step for step in range(5)}
    found = values(tmp_path / "run")
    odd = [found.pop((step, "odd")) for step in range(5)]
    assert found == expected | {(10, "late"): 0.5}
    assert [math.isinf(value) for value in odd] == [False, False, True, False, False]
    assert result.answer.warnings == ()


def test_what_trackio_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    trackio.init(project="p", name="r1", config={"lr": 0.1})
    for step in range(4):
        trackio.log({"loss": 1 / (step + 3), "odd": math.nan})
    trackio.finish()
    xaicli.import_run(tmp_path / "trackio", tmp_path / "run")
    found = values(tmp_path / "run")
    assert all(math.isnan(found.pop((step, "odd"))) for step in range(4))
    assert found == {(step, "loss"): 1 / (step + 3) for step in range(4)}


def test_each_run_of_a_project_becomes_a_run(xai: Xai, tmp_path: Path) -> None:
    path = project(
        tmp_path / "p.db", [("1", "a/b", 0, {"loss": 1.0}), ("2", "c", 0, {"loss": 2.0}), ("3", "c", 5, {"loss": 3.0})]
    )
    status, out, _ = xai("import", path, "-o", tmp_path / "runs", "--json")
    assert status == 0
    assert json.loads(out)["outputs"] == [str(tmp_path / "runs" / name) for name in ("a-b", "c", "c-3")]
    assert [(row["run"], row["name"]) for row in json.loads(out)["rows"]] == [
        (str(tmp_path / "runs" / name), title) for name, title in (("a-b", "a/b"), ("c", "c"), ("c-3", "c"))
    ]
    assert [values(tmp_path / "runs" / name) for name in ("a-b", "c", "c-3")] == [
        {(0, "loss"): 1.0},
        {(0, "loss"): 2.0},
        {(5, "loss"): 3.0},
    ]
    assert xai("import", path, "-o", tmp_path / "one", "--run", "a/b", "-q")[:2] == (0, f"{tmp_path / 'one'}\n")
    assert values(tmp_path / "one") == {(0, "loss"): 1.0}
    (tmp_path / "third").mkdir()
    (tmp_path / "runs" / "c").rename(tmp_path / "third" / "c")
    status, _, err = xai("import", path, "-o", tmp_path / "third")
    assert (status, err.splitlines()[0]) == (1, f"error: {tmp_path / 'third' / 'c'} holds a run already")
    assert [folder.name for folder in (tmp_path / "third").iterdir()] == ["c"]
    status, _, err = xai("import", path, "-o", tmp_path / "two", "--run", "d")
    assert (status, err.splitlines()[0]) == (1, f"error: no run 'd' in {path}")


def a_folder_of_csv(folder: Path) -> Path:
    for name, text in {
        "a": "step,loss\n1,0.5\n",
        "b": "loss,loss\n1,2\n",  # two columns of one name
        "c": "sample_id,epoch,label,loss\n1,0,0,0.5\n2,0,1\n",  # breaks off with samples already read
        "d": 'sample_id,epoch,label,loss\n1,0,"[0, 1",0.5\n',  # a set that is none
        "e": "step,loss\n7,0.25\n",
    }.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "metrics.csv").write_text(text, encoding="utf-8")
    return folder


def a_project_of_trackio(folder: Path) -> Path:
    ids = "abcde"
    path = project(folder / "p.db", [(id_, id_, number, {"loss": 0.5}) for number, id_ in enumerate(ids)])
    with closing(sqlite3.connect(path)) as base, base:
        for id_, text in (("b", "{"), ("c", "[1]"), ("d", "7")):
            base.execute("UPDATE metrics SET metrics = ? WHERE run_id = ?", (text, id_))
    return path


def logs_of_wandb(folder: Path) -> Path:
    bad = {
        "b": b"hello",
        "c": framed([history({"loss": 1.0}), varint(17 << 3 | 3)]),  # a wire type that nobody writes
        "d": framed([field(2, field(1, field(2, b"\xff") + field(16, b"1")))]),  # a key that is no text
    }
    for name in "abcde":
        (folder / f"offline-run-{name}").mkdir(parents=True)
        content = bad.get(name) or framed([history({"_step": 0, "loss": 0.5})])
        (folder / f"offline-run-{name}" / f"run-{name}.wandb").write_bytes(content)
    return folder


@pytest.mark.parametrize("source", [a_folder_of_csv, a_project_of_trackio, logs_of_wandb])
def test_a_run_that_cannot_be_imported_costs_the_others_nothing(
    xai: Xai, tmp_path: Path, source: Callable[[Path], Path]
) -> None:
    (tmp_path / "source").mkdir()
    path = source(tmp_path / "source")
    status, out, err = xai("import", path, "-o", tmp_path / "runs", "--json")
    assert status == 1
    assert "error: 3 of 5 runs could not be imported: b, c, d" in err
    found = json.loads(out)
    assert [row["name"] for row in found["rows"]] == [*"abcde"]
    assert [row["problem"] is None for row in found["rows"]] == [True, False, False, False, True]
    assert found["outputs"] == found["selection"]["runs"] == [str(tmp_path / "runs" / name) for name in "ae"]
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["a", "e"]
    assert sum(text.split(" ")[0] in "bcd" and "is not imported: " in text for text in found["warnings"]) == 3
    assert [list(values(tmp_path / "runs" / name).values()) for name in "ae"] in ([[0.5], [0.25]], [[0.5], [0.5]])
    # Alone, each is as it is in the folder: there, or an error and nothing.
    assert xai("import", path, "-o", tmp_path / "one", "--run", "e", "-q")[0] == 0
    for name in "bcd":
        assert xai("import", path, "-o", tmp_path / "two", "--run", name, "-q")[0] == 1
    assert not (tmp_path / "two").exists()


def test_what_a_later_start_took_back_in_tensorboard(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    with tensorboard.SummaryWriter(str(tmp_path / "a")) as writer:
        for step in range(10):
            writer.add_scalar("loss", step, step)
        writer.add_histogram("weights", np.arange(5.0), 1)
    with tensorboard.SummaryWriter(str(tmp_path / "a"), purge_step=7) as writer:
        writer.add_scalar("loss", 70, 7)
    result = xaicli.import_run(tmp_path / "a", tmp_path / "run")
    assert values(tmp_path / "run") == {**{(step, "loss"): step for step in range(7)}, (7, "loss"): 70.0}
    assert result.answer.warnings == (
        "a: 3 values do not count, as in TensorBoard: a later start logged those steps again",
        "a: not imported: 1 histograms",
    )


def test_a_damaged_file_of_tensorboard_is_read_up_to_the_damage(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    with tensorboard.SummaryWriter(str(tmp_path / "a")) as writer:
        for step in range(10):
            writer.add_scalar("loss", step, step)
    (path,) = (tmp_path / "a").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    result = xaicli.import_run(tmp_path / "a", tmp_path / "run")
    assert values(tmp_path / "run") == {(step, "loss"): step for step in range(9)}
    assert "is damaged: its last" in result.answer.warnings[0]


def test_tensorboard_that_is_not_installed_is_named(xai: Xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing.event_file_loader", None)
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    status, _, err = xai("import", tmp_path, "-o", tmp_path / "run")
    assert (status, (tmp_path / "run").exists()) == (1, False)
    assert "pip install 'xaicli[tensorboard]'" in err


def test_what_the_command_exports_it_imports(xai: Xai, sample_run: Path, tmp_path: Path) -> None:
    assert xai("export", sample_run, "--mode", "all", "--format", "csv", "-o", tmp_path)[0] == 0
    assert xai("import", tmp_path / "export.csv", "-o", tmp_path / "run")[0] == 0
    key = ["mode", "ds_id", "epoch", "pass", "step", "sample_id"]
    one, other = (xaicli.open_run(run).scan(mode="all").collect().sort(key) for run in (sample_run, tmp_path / "run"))
    assert one.select(*key, "label", "prediction", "correct").equals(
        other.select(*key, "label", "prediction", "correct")
    )
    assert other["loss"].cast(one.schema["loss"]).to_list() == one["loss"].to_list()


def test_columns_of_a_csv(tmp_path: Path) -> None:
    rows = [["007", "cat", 1, "0.1", "left"], ["8", "", 1, "nan", ""], [" x", "dog", 2, "", "right"]]
    path = table(tmp_path / "r.csv", ["sample_id", "label", "epoch", "loss", "camera"], rows)
    result = xaicli.import_run(path, tmp_path / "run")
    frame = xaicli.open_run(tmp_path / "run").scan(mode="train").collect()
    assert frame["sample_id"].to_list() == ["007", "8", " x"]
    assert frame["label"].to_list() == ["cat", None, "dog"]
    assert frame["loss"][0] == 0.1  # in double precision, as the file says
    assert math.isnan(frame["loss"][1])
    assert frame["loss"][2] is None
    assert result.answer.warnings == (
        "r: no column mode: the rows are those of train",
        "r: not imported: 2 texts in the column camera",
    )


def test_a_log_of_lightning(tmp_path: Path) -> None:
    folder = tmp_path / "lightning_logs" / "version_3"
    folder.mkdir(parents=True)
    table(
        folder / "metrics.csv",
        ["epoch", "step", "train_loss", "val_acc"],
        [[0, 49, 0.5, ""], [0, 49, "", 0.25], [1, 99, "inf", ""]],
    )
    (folder / "hparams.yaml").write_text("lr: 0.1\n")
    result = xaicli.import_run(tmp_path / "lightning_logs", tmp_path / "run")
    assert values(tmp_path / "run") == {(49, "train_loss"): 0.5, (49, "val_acc"): 0.25, (99, "train_loss"): math.inf}
    assert result.data["name"].to_list() == ["version_3"]
    assert result.data["left_out"].to_list() == ["1 settings in hparams.yaml"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "sample_id,loss\n1,2,3\n", "row 2: another number of cells"),
        ("a.csv", "loss,loss\n1,2\n", "a name of its own for each column"),
        ("a.csv", "", "a name of its own for each column"),
        ("a.wandb", "hello", "is no log of W&B"),
        ("a.txt", "hello", "nothing reads"),
    ],
)
def test_what_cannot_be_read_leaves_nothing(xai: Xai, tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    status, _, err = xai("import", tmp_path / name, "-o", tmp_path / "run")
    assert (status, (tmp_path / "run").exists()) == (1, False)
    assert said in err
    assert "fault of xai" not in err


def test_a_run_that_is_there_is_left_alone(xai: Xai, sample_run: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "metrics.csv", ["step", "loss"], [[1, 2.0]])
    before = (sample_run / "xai.json").read_bytes()
    status, _, err = xai("import", path, "-o", sample_run)
    assert (status, err.splitlines()) == (
        1, [f"error: {sample_run} holds a run already", "hint: -o names another folder"]
    )  # fmt: skip
    assert (sample_run / "xai.json").read_bytes() == before
    status, _, err = xai("import", path, "-o", tmp_path / "run", "--from", "nosuch")
    assert status == 2
    assert "known: tensorboard, wandb, trackio, csv" in err


def test_a_key_that_is_named_and_of_another_mode_is_told(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log({"lr": 0.1}, step=1, mode="train")
        run.log({"val_acc": 0.5}, step=1, mode="eval", ds_id="clean")
    asked = scalars([tmp_path / "run"], key=["lr", "val_acc"], mode="train")
    assert asked.data["key"].to_list() == ["lr"]
    assert asked.report.warnings == ("val_acc is left out: its values are of eval clean",)
    assert not scalars([tmp_path / "run"], mode="train").report.warnings
    asked = scalars([tmp_path / "run"], mode=["train", "eval"], ds_id="clean")
    assert asked.data["key"].to_list() == ["val_acc"]
    assert asked.report.warnings == ("train is left out: it has no scalars of ds_id clean",)
    assert not scalars([tmp_path / "run"], ds_id="clean").report.warnings
