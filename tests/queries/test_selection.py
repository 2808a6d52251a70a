"""How the user's words are taken, and what is said of words that mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.written_run import WrittenRun
from xaicli.api import open_run
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.queries.resolution import resolve
from xaicli.queries.selection import Selection, left_out_by
from xaicli.reader import Reader, open_reader
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run

A, B, TRAIN = ("eval", "a"), ("eval", "b"), ("train", "")


@pytest.fixture(scope="module")
def reader(written: WrittenRun) -> Reader:
    return open_reader(written.layout)


@pytest.mark.parametrize(
    ("mode", "pairs"),
    [
        (None, (A, B)),
        ("train", (TRAIN,)),
        (["train", "eval"], (TRAIN, A, B)),
        ("all", (TRAIN, A, B)),
        ("!eval", (TRAIN,)),
        ("!infer", (TRAIN, A, B)),
        (["all", "!train"], (A, B)),
    ],
)
def test_modes(reader: Reader, mode: Any, pairs: Any) -> None:
    assert resolve(reader, mode=mode).pairs == pairs


@pytest.mark.parametrize(("ds_id", "pairs"), [(None, (A, B)), ("a", (A,)), ("!a", (B,)), (["a", "b"], (A, B))])
def test_ds_ids(reader: Reader, ds_id: Any, pairs: Any) -> None:
    assert resolve(reader, ds_id=ds_id).pairs == pairs


def test_a_mode_named_that_has_none_of_the_data_sets_is_told(reader: Reader) -> None:
    for mode, ds_id, what in (
        (["train", "eval"], "a", "no ds_id 'a'"),
        ("eval,train", ["a", "b"], "no ds_id 'a' or 'b'"),
        (["train", "eval"], '!""', "no ds_id but ''"),
    ):
        selection = resolve(reader, mode=mode, ds_id=ds_id)
        assert selection.modes == ("eval",)
        assert selection.modes_lacking == {"train": what}
        assert [words for words in selection.warnings if words not in reader.warnings] == [
            f"train is left out: it has {what}"
        ]
        assert "--mode" not in left_out_by(reader, selection)  # all there are were named
    for mode in ("all", "!infer", None, ["eval", "all"]):
        assert not resolve(reader, mode=mode, ds_id="a").modes_lacking


def test_data_sets_with_commas_or_without_a_name_can_be_left_out(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    names = ("", "a,b", "!x", "y")
    run.write({"sample_id": 1, "ds_id": name, "epoch": 1, "loss": 1.0} for name in names)
    reader = open_reader(run.layout)
    for typed, left in (
        ('!""', {"a,b", "!x", "y"}),
        ('!"a,b"', {"", "!x", "y"}),
        ('"!a,b"', {"", "!x", "y"}),
        ('!"a,b",!""', {"!x", "y"}),
        ('"a,b",""', {"a,b", ""}),
        ("!x", {"!x"}),
        ("!!x", {"", "a,b", "y"}),
    ):
        assert {ds_id for _, ds_id in resolve(reader, ds_id=typed).pairs} == left, typed
    with pytest.raises(XaiError) as raised:
        resolve(reader, ds_id="nosuch")
    assert '"a,b"' in raised.value.hint


@pytest.mark.parametrize(
    ("epoch", "every", "epochs"),
    [
        (None, 1, (1, 2, 3, 4)),
        (2, 1, (2,)),
        ("2-3", 1, (2, 3)),
        (["1", "3-9"], 1, (1, 3, 4)),
        ("first", 1, (1,)),
        ("last", 1, (4,)),
        (None, 2, (2, 4)),
        ("1-3", 3, (3,)),
    ],
)
def test_epochs(reader: Reader, epoch: Any, every: int, epochs: Any) -> None:
    assert resolve(reader, epoch=epoch, epoch_frequency=every).epochs == {A: epochs, B: epochs}


def test_metrics(reader: Reader) -> None:
    assert resolve(reader).metrics == ("loss",)
    assert resolve(reader, metric=["margin", "loss", "margin"]).metrics == ("margin", "loss")


def test_label_map(reader: Reader) -> None:
    assert resolve(reader, label_map=["Katze=0", "a=b=2"]).label_map == {0: "Katze", 2: "a=b"}
    assert resolve(reader, label_map={"Hund": "dog"}).label_map == {1: "Hund"}


def test_no_eval_rows_falls_back_to_train_and_says_so(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write([{"sample_id": 1, "epoch": 1, "mode": "train", "other": 0.5}])
    selection = resolve(open_reader(run.layout))
    assert (selection.modes, selection.metrics) == (("train",), ("other",))
    assert selection.warnings == ("the run has no eval rows: showing train",)


def test_selection_is_plain_json(reader: Reader) -> None:
    selection: Selection = resolve(reader, ds_id="a", epoch="last", label_map=["Katze=0"])
    assert selection.as_dict() == {
        "metric": ["loss"],
        "mode": ["eval"],
        "ds_id": ["a"],
        "ds_ids_left_out": ["b"],
        "epoch": [4],
        "epoch_asked": ["last"],
        "epoch_frequency": 1,
        "label_key": "label",
        "label_map": {"Katze": 0},
        "duplicates": "last",
        "engine": "polars",
        "attempts": "last",
    }


@pytest.mark.parametrize(
    ("words", "message", "hint", "kind"),
    [
        ({"metric": "lossy"}, "no metric 'lossy'", "did you mean loss? known metrics: loss, margin", XaiError),
        ({"mode": "evl"}, "no mode 'evl'", "did you mean eval?", XaiError),
        ({"mode": "test"}, "no mode 'test'", "known modes: train, eval", XaiError),
        ({"mode": "!tran"}, "no mode 'tran'", "did you mean train?", XaiError),
        ({"mode": ["!train", "!eval"]}, "no mode is left", "recorded: train, eval", XaiError),
        ({"ds_id": "c"}, "no ds_id 'c'", "known ds_ids: a, b", XaiError),
        ({"epoch": 9}, "there is no epoch 9", "recorded epochs: 1-4", XaiError),
        ({"epoch": "soon"}, "--epoch 'soon' is no epoch", "numbers", UsageError),
        ({"epoch_frequency": 0}, "--epoch-frequency must be at least 1", "", UsageError),
        ({"epoch_frequency": 9}, "divisible by 9", "recorded epochs: 1-4", XaiError),
        ({"label_key": "labl"}, "no column 'labl'", "did you mean label?", XaiError),
        ({"label_map": ["cat"]}, "is not NAME=VALUE", "cat=3", UsageError),
        ({"label_map": ["x=bird"]}, "no label 'bird'", "known labels: cat, dog, eel", XaiError),
        ({"duplicates": "some"}, "--duplicates 'some'", "last, all, error", UsageError),
        ({"spark_remote": "sc://there"}, "--spark-remote needs --engine spark", "add --engine spark", UsageError),
        ({"engine": "dask"}, "--engine 'dask'", "polars, duckdb, spark", UsageError),
    ],
)
def test_words_that_mean_nothing(reader: Reader, words: Any, message: str, hint: str, kind: type[XaiError]) -> None:
    with pytest.raises(kind) as raised:
        resolve(reader, **words)
    assert message in raised.value.message
    assert hint in raised.value.hint
    assert type(raised.value) is kind


def test_run_without_samples(tmp_path: Path) -> None:
    with pytest.raises(XaiError, match="holds no samples"):
        resolve(open_reader(WrittenRun(tmp_path / "run").layout))


def test_a_run_whose_rows_were_all_dropped_says_why(tmp_path: Path) -> None:
    with pytest.warns(RecorderWarning), Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1.5, 2.5], loss=[1.0, 2.0])
    with pytest.raises(XaiError) as raised:
        resolve(open_reader(RunLayout(tmp_path / "run")))
    assert raised.value.message == f"{tmp_path / 'run'} holds no samples: 2 rows were not recorded"
    assert raised.value.hint == "2: sample_id must be whole numbers or texts, not float64"


@pytest.mark.parametrize("column", ["sample_id", "epoch", "step", "mode"])
def test_columns_that_group_nothing_are_no_label_key(reader: Reader, column: str) -> None:
    with pytest.raises(UsageError, match=f"--label-key {column} does not group samples"):
        resolve(reader, label_key=column)


def test_labels_of_every_kind_are_named(tmp_path: Path) -> None:
    rows = [
        {"sample_id": i, "epoch": 1, "loss": 1.0, "score": i / 2, "correct": i > 1, "kind": f"k,{i}"} for i in range(3)
    ]
    run = WrittenRun(tmp_path / "run")
    run.write(rows)
    reader = open_reader(run.layout)
    with pytest.raises(UsageError, match="--label-map names labels, and score holds numbers"):
        resolve(reader, label_key="score", label_map="half=0.5")
    assert resolve(reader, label_key="correct", label_map="yes=true").label_map == {True: "yes"}
    assert resolve(reader, label_key="kind", label_map='first="k,0"').label_map == {"k,0": "first"}
    with pytest.raises(XaiError, match="no label 'much'"):
        resolve(reader, label_key="score", label_map="x=much")
    with pytest.raises(XaiError, match="has no label for --label-map to name"):
        resolve(reader, label_map="x=1")


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_label_map_limits_sets_to_those_with_such_a_class(tmp_path: Path, engine: str) -> None:
    with Run(tmp_path / "run", task="multilabel", label_names=["sky", "sea", "sand"]) as run:
        for epoch in (1, 2):
            asked = {"mode": "eval", "epoch": epoch, "step": epoch}
            loss = [1.0 * epoch, 2.0, 4.0, 8.0, 16.0]
            run.log_samples(sample_id=range(5), label=[[0], [0, 2], [], [1, 2], [2]], loss=loss, **asked)
    reader, chosen = open_run(tmp_path / "run"), {"label_map": "blue=sky,sea=1", "engine": engine}
    labels = reader.labels(**chosen).data.filter(epoch=2).select("label", "name", "n", "mean").rows()
    assert labels == [(0, "blue", 2, 2.0), (1, "sea", 1, 8.0)]
    samples = reader.samples(max=9, min=0, **chosen).data.select("sample_id", "score").rows()
    assert samples == [(3, 8.0), (0, 2.0), (1, 2.0)]
    assert reader.dynamics(**chosen).data.select("sample_id", "loss_mean").rows() == [(0, 1.5), (1, 2.0), (3, 8.0)]
    assert reader.scan(label_map="sea=1").collect()["sample_id"].to_list() == [3, 3]
    with pytest.raises(XaiError, match="no label 'lake'"):
        reader.labels(label_map="sea=lake")
    with pytest.raises(XaiError, match="no label '7'") as refused:
        reader.labels(label_map="sea=7")
    assert "known labels: 0, 1, 2" in (refused.value.hint or "")


def test_a_label_map_of_numbers_is_refused_by_name(tmp_path: Path) -> None:
    with Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=[1, 2], label=[0.5, 1.5], prediction=[1.0, 1.0], mode="eval", epoch=1, step=1)
    with pytest.raises(UsageError, match="--label-map names labels, and label holds numbers"):
        open_run(tmp_path / "run").labels(label_map="low=0.5")


@pytest.mark.parametrize("metrics", [{}, {"a": [1.0, 2.0], "b": [3.0, 4.0]}])
def test_rows_are_handed_out_whatever_is_measured(tmp_path: Path, metrics: dict[str, list[float]]) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], mode="eval", epoch=1, step=1, **metrics)
    reader = open_run(tmp_path / "run")
    rows = reader.scan().collect()
    assert rows.select("sample_id", "label", *metrics).to_dict(as_series=False) == {
        "sample_id": [1, 2],
        "label": [0, 1],
        **metrics,
    }
    reader.export(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text().splitlines() == [
        ",".join(["mode,ds_id,sample_id,epoch,pass,step,label", *metrics]),
        ",".join(['eval,"",1,1,0,1,0', *(str(values[0]) for values in metrics.values())]),
        ",".join(['eval,"",2,1,0,1,1', *(str(values[1]) for values in metrics.values())]),
    ]
    assert reader.query("SELECT count(*) AS n FROM samples").data.rows() == [(2,)]
    assert reader.info().data["metrics"].to_list() == [list(metrics)]
