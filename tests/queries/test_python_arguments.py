"""Arguments as people hand them over in Python: numbers of numpy, lists of runs, the data set without a name, and what
is none of these refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arguments") / "run"
    with xaicli.Run(path) as run:
        for epoch in (1, 2, 3):
            for ds_id in ("", "night"):
                logits = np.random.default_rng(epoch).normal(size=(12, 3))
                run.log_samples(
                    sample_id=np.arange(12),
                    label=np.arange(12) % 3,
                    logits=logits,
                    mode="eval",
                    ds_id=ds_id,
                    epoch=epoch,
                    step=epoch,
                )
    return path


@pytest.mark.parametrize("epoch", [np.int64(2), np.array([2]), np.array(2), [np.int32(2)], "2", range(2, 3)])
def test_an_epoch_is_any_whole_number(path: Path, epoch: Any) -> None:
    found = xaicli.open_run(path).labels(epoch=epoch)
    assert found.data["epoch"].unique().to_list() == [2]


@pytest.mark.parametrize("given", ["", [""], '""'])
def test_an_empty_text_is_the_data_set_without_a_name(path: Path, given: Any) -> None:
    found = xaicli.open_run(path).samples(ds_id=given)
    assert found.data["ds_id"].unique().to_list() == [""]
    assert found.data.height == 10


def test_so_it_is_in_a_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", str(path), "--ds-id", "", "--json"]) == 0
    assert '"ds_id":[""]' in capsys.readouterr().out


@pytest.mark.parametrize("given", ["3", None, 2.5, [1]])
@pytest.mark.parametrize(
    ("question", "name", "option"),
    [
        ("samples", "max", "--max"),
        ("samples", "min", "--min"),
        ("findings", "top", "--top"),
        ("dynamics", "early_epochs", "--early-epochs"),
        ("dynamics", "burn_in", "--burn-in"),
        ("slices", "min_n", "--min-n"),
        ("labels", "epoch_frequency", "--epoch-frequency"),
    ],
)
def test_what_is_no_whole_number_is_refused_by_name(
    path: Path, question: str, name: str, option: str, given: Any
) -> None:
    with pytest.raises(UsageError, match=f"{option} must be a whole number"):
        getattr(xaicli.open_run(path), question)(**{name: given})


def test_a_whole_number_of_numpy_is_one(path: Path) -> None:
    run = xaicli.open_run(path)
    assert run.samples(max=np.int64(3), min=np.uint8(0), ds_id="").data.height == 3
    assert run.samples(max=np.int64(3), min=0).to_json()


@pytest.mark.parametrize("question", ["samples", "labels", "dynamics", "findings", "slices", "steps", "report"])
def test_an_argument_that_does_not_exist_is_named(path: Path, question: str) -> None:
    with pytest.raises(UsageError, match="no argument 'modus'") as raised:
        getattr(xaicli.open_run(path), question)(modus="eval")
    assert "mode" in raised.value.hint
    with pytest.raises(UsageError, match="no argument 'output'") as raised:
        getattr(xaicli.open_run(path), question)(output="there")
    assert ".save(" in raised.value.hint


def test_runs_are_compared_one_by_one_as_a_list_and_opened(path: Path) -> None:
    run = xaicli.open_run(path)
    asked = [(path, path), ([path, str(path)],), (run, path), ([run, run],)]
    found = [xaicli.compare(*runs, ds_id="") for runs in asked]
    assert all(one.data.equals(found[0].data) for one in found)
    assert (found[0].data["change"] == 0).all()
    with pytest.raises(XaiError, match="no argument 'modes'"):
        xaicli.compare([path, path], modes="eval")


def test_a_cell_is_a_text_or_two_labels(path: Path) -> None:
    run = xaicli.open_run(path)
    last = run.scan(epoch="last", ds_id="").collect()
    taken = last["prediction"][0]
    n = last.filter((last["label"] == 0) & (last["prediction"] == taken)).height
    for cell in (f"0,{taken}", (0, taken), [0, np.int64(taken)], ("0", str(taken))):
        assert run.confusion(cell=cell, ds_id="").data["sample_id"].n_unique() == n


EMPTY: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(
        (question, "mode", {})
        for question in ("samples", "labels", "dynamics", "findings", "slices", "steps", "report")
    ),
    *((question, "metric", {}) for question in ("samples", "labels", "dynamics", "scan", "export")),
    *((question, "epoch", {}) for question in ("samples", "labels", "confusion")),
    *((question, "ds_id", {}) for question in ("samples", "labels", "errors")),
    ("labels", "label_map", {}),
    ("labels", "bounds", {}),
    ("check", "ds_id", {"rule": "loss mean < 9"}),
    ("slices", "by", {"min_n": 2}),
    ("select", "mode", {"rule": "random", "n": 1}),
)


@pytest.mark.parametrize("empty", [[], (), np.array([])], ids=["list", "tuple", "array"])
@pytest.mark.parametrize(("question", "name", "beside"), EMPTY)
def test_an_empty_list_is_not_everything(
    path: Path, question: str, name: str, beside: dict[str, Any], empty: Any
) -> None:
    with pytest.raises(UsageError, match=f"{name} was given, and names nothing"):
        getattr(xaicli.open_run(path), question)(**beside, **{name: empty})


@pytest.mark.parametrize(
    ("question", "given", "said"),
    [
        ("labels", {"label_key": ["label"]}, "--label-key is one column"),
        ("samples", {"stat": ["mean"]}, "--stat is one statistic"),
        ("samples", {"max": True}, "--max must be a whole number, not True"),
        ("samples", {"where": ["loss > 1"]}, "--where is SQL, not list"),
        ("samples", {"where": " "}, "--where names nothing"),
        ("labels", {"label_map": {"A": {0: 1}}}, "no label '.0: 1.'"),
        ("check", {"rules": ["loss mean < 9"]}, "rules is a file of rules"),
    ],
)
def test_what_is_of_another_kind_is_refused_by_name(
    path: Path, question: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(XaiError, match=said) as refused:
        getattr(xaicli.open_run(path), question)(**given)
    assert refused.value.hint


def test_no_ids_list_no_sample(path: Path, tmp_path: Path) -> None:
    run = xaicli.open_run(path)
    assert run.samples(ids=[], max=0, min=0).data.height == 0
    assert run.samples(ids=[], ds_id="").data["group"].unique().sort().to_list() == ["max", "min"]
    assert run.relabel_export(tmp_path / "none.csv", ids=[]).data.height == 0


@pytest.mark.parametrize("option", ["--metric", "--mode", "--epoch", "--label-map", "--bounds", "--where"])
def test_an_empty_text_is_refused_in_a_terminal(path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", str(path), f"{option}="]) == 2
    assert f"error: {option} names nothing" in capsys.readouterr().err


def test_an_export_lies_in_the_run_where_no_place_is_named(path: Path) -> None:
    run = xaicli.open_run(path)
    long, wide = run.export(format="jsonl"), run.export(shape="wide")
    assert [Path(one.data["path"][0]) for one in (long, wide)] == [
        path / "reports" / name for name in ("export.jsonl", "export.csv")
    ]
    written = [len(Path(one.data["path"][0]).read_text().splitlines()) for one in (long, wide)]
    assert written == [72, 25]
    assert [one.data["rows"][0] for one in (long, wide)] == [72, 24]
    with pytest.raises(UsageError, match="--duplicates all has no place"):
        run.export(shape="wide", duplicates="all")


def test_a_statistic_says_what_it_needs(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
    run = xaicli.open_run(tmp_path / "run")
    for stat, column in (("confidence", "label_prob"), ("forgetting", "correct"), ("aum", "margin"), ("el2n", "el2n")):
        with pytest.raises(XaiError, match=f"has no {column}, which --stat {stat} needs") as raised:
            run.samples(stat=stat)
        assert "logits" in raised.value.hint


def test_a_run_of_scalars_alone_names_the_command_for_them(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log({"lr": 0.5})
    run = xaicli.open_run(tmp_path / "run")
    for question in ("samples", "labels", "dynamics", "findings", "report", "export"):
        with pytest.raises(XaiError, match="holds no samples") as raised:
            getattr(run, question)()
        assert "xai scalars" in raised.value.hint
    assert run.scalars().data["value"].to_list() == [0.5]


ALONE: dict[str, dict[str, Any]] = {
    **{key: {} for key in ("confusion", "steps", "errors", "scan", "export", "relabel_export")},
    "slices": {"min_n": 2},
    "select": {"rule": "random", "n": 1},
}


@pytest.mark.parametrize("question", ALONE)
def test_what_polars_alone_answers_refuses_other_engines(path: Path, question: str) -> None:
    """They said that DuckDB had answered, and it had not been asked."""
    ask = getattr(xaicli.open_run(path), question)
    for words in ({"engine": "duckdb"}, {"axis": "step"}, {"spark_remote": "sc://nowhere"}):
        (name,) = words
        with pytest.raises(UsageError, match=f"{question} .*--{name.replace('_', '-')} "):
            ask(**ALONE[question], **words)


@pytest.mark.parametrize("question", ["dynamics", "findings"])
def test_an_axis_is_of_pictures_over_time(path: Path, question: str) -> None:
    with pytest.raises(UsageError, match="--axis step"):
        getattr(xaicli.open_run(path), question)(axis="step")


def test_a_scan_leaves_no_duplicate_out(path: Path) -> None:
    run = xaicli.open_run(path)
    assert run.scan(duplicates="all").collect().height == 72
    with pytest.raises(UsageError, match="duplicates"):
        run.scan(duplicates="last")


def test_a_frame_lists_ids_as_its_file_would(path: Path) -> None:
    """By its columns mode and ds_id, where it has them; NaN of pandas is nothing."""
    opened = xaicli.open_run(path)
    placed = {"sample_id": [3, 7], "mode": ["eval", "eval"], "ds_id": ["", "night"]}
    both = [(ds_id, n) for ds_id in ("", "night") for n in (3, 7)]
    nowhere = {**placed, "mode": [np.nan, np.nan], "ds_id": [np.nan, "night"]}
    chosen = opened.select(rule="hardest", n=1)
    for given, expected in (
        (pl.DataFrame({"sample_id": [3, 7]}), both),
        (pl.LazyFrame({"sample_id": [3, 7]}), both),
        ({"sample_id": [3, 7]}, both),
        (pl.DataFrame(placed), [("", 3), ("night", 7)]),
        (pd.DataFrame(placed), [("", 3), ("night", 7)]),
        (pd.DataFrame(nowhere), [("", 3), ("night", 3), ("night", 7)]),
        (chosen, sorted(chosen.data.select("ds_id", "sample_id").rows())),
        ([np.array([3])], [("", 3), ("night", 3)]),
    ):
        assert opened.samples(max=0, min=0, ids=given).data.select("ds_id", "sample_id").rows() == expected
        compared = xaicli.compare(path, path, max=0, min=0, ids=given).data
        listed = compared.filter(kind="sample", group="listed")
        assert sorted(listed.select("ds_id", "sample_id").rows()) == expected
    with pytest.raises(XaiError, match="the given DataFrame has no column sample_id"):
        opened.samples(ids=pl.DataFrame({"id": [3, 7]}))


@pytest.mark.parametrize("ids", [np.array([[3, 7]]), [[3], [7]], [(3, 7)], [np.array([3, 7])]])
def test_ids_in_rows_are_refused(path: Path, ids: Any) -> None:
    for ask in (xaicli.open_run(path).samples, lambda **ids: xaicli.compare(path, path, **ids)):
        with pytest.raises(UsageError, match="ids are one list"):
            ask(ids=ids)
