"""Lists of samples go into a training again: `Table(select=...)`, `Table(relabel=...)`, a sampler."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.api.decisions import KINDS, write_list
from xaicli.cli import main
from xaicli.cli.options import read_ids
from xaicli.errors import UsageError, XaiError

HARD_IDS = [
    "plain",
    "a,b",
    'q"uote',
    "=1+1",
    "-5",
    "@x",
    "é 漢",
    "!x",
    "007",
    "7",
    "# no comment",
    '"whole"',
    "sample_id",
    "x,sample_id",
]


def table_of(ids: list[Any], **how: Any) -> xaicli.Table:
    return xaicli.Table([(f"input {i}", place) for place, i in enumerate(ids)], ids=ids, **how)


@pytest.mark.parametrize("kind", KINDS)
def test_every_id_comes_back_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    for chosen in (HARD_IDS, HARD_IDS[::2], HARD_IDS[3:7]):
        path = write_list(pl.DataFrame({"sample_id": chosen}), tmp_path / f"list.{kind}")
        table = table_of(HARD_IDS, select=path)
        assert sorted(table.sample_ids or ()) == sorted(chosen)
        assert [table[row][0] for row in range(len(table))] == [f"input {i}" for i in HARD_IDS if i in chosen]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
def test_ids_with_line_breaks_come_back_from_files_with_columns(tmp_path: Path, kind: str) -> None:
    ids = ["a\nb", "c\r\nd", " e ", "\u2028"]
    path = write_list(pl.DataFrame({"sample_id": ids}), tmp_path / f"list.{kind}")
    assert table_of(ids, select=path).sample_ids == ids
    with pytest.raises(UsageError, match="line"):
        write_list(pl.DataFrame({"sample_id": ["a\nb"]}), tmp_path / "list.txt")


def test_whole_numbers_and_row_numbers_are_ids(tmp_path: Path) -> None:
    path = write_list(pl.DataFrame({"sample_id": [30, 10]}), tmp_path / "list.txt")
    assert path.read_text() == "30\n10\n"
    assert [table_of([10, 20, 30, 40], select=path)[row][1] for row in range(2)] == [0, 2]
    rows = xaicli.Table(list("abcd"), select=[3, 1])
    assert [rows[0], rows[1]] == ["b", "d"]
    assert rows.sample_ids == [1, 3]


def test_remarks_of_people_are_no_ids(tmp_path: Path) -> None:
    file = tmp_path / "gold.txt"
    file.write_text("# my golden set\n20\n\n  # blurred\n30  # dark\n#\n")
    assert table_of([10, 20, 30], select=file).sample_ids == [20, 30]
    assert sorted(xaicli.sampler_of(file, [10, 20, 30], seed=0)) == [1, 2]
    assert read_ids([f"@{file}"]) == ["20", "30"]
    file.write_text("# mine\nx # 1\n#y\n7#3\n")  # what are no numbers may hold the sign
    assert table_of(["x # 1", "#y", "7#3", "z"], select=file).sample_ids == ["x # 1", "#y", "7#3"]
    file.write_text("1#0\n2#0\n")
    assert table_of(["1#0", "2#0", "1"], select=file).sample_ids == ["1#0", "2#0"]
    file.write_text("# mine\nsample_id,weight\nb # 2,3\n")
    assert table_of(["a", "b # 2"], select=file).sample_ids == ["b # 2"]
    odd = ["1 # 2", "3", "#", "# 4"]
    assert read_ids([f"@{write_list(pl.DataFrame({'sample_id': odd}), file)}"]) == odd


@pytest.mark.parametrize(
    "text",
    [
        "# golden, by Ann\nsample_id,why\n20,blur\n30,dark\n",
        "#golden\r\n\r\nsample_id,why\r\n20,blur\r\n30,dark\r\n",
        'sample_id,why\n# the blurred\n20,blur\n#\n# "the", dark\n30,dark\n',
        "sample_id;why\n20 # by Ann;blur\n30;dark\n#end\n",
        "sample_id\n# note\n20\n30 # dark\n",
        "why,sample_id\n# 1,20 # blurred\n# 2,30\n",  # what is no id may hold the sign
        "20\n30\t# dark\n#end\n",
    ],
)
def test_every_reader_of_lists_passes_over_the_same_remarks(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_samples(
            sample_id=[10, 20, 30], label=[0] * 3, prediction=[1] * 3, loss=[1.0] * 3, mode="train", epoch=1
        )
    file = tmp_path / ("gold.csv" if "sample_id" in text else "gold.txt")
    file.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table_of([10, 20, 30], select=file).sample_ids == [20, 30]
        assert sorted(xaicli.sampler_of(file, [10, 20, 30], seed=0)) == [1, 2]
    assert read_ids([f"@{file}"]) == ["20", "30"]
    assert main(["check", str(tmp_path / "run"), "--rule", f"no sample of {file} is wrong", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["value"], row["failing"]) == (2, [20, 30])
    file = tmp_path / "people.csv"
    file.write_text("# by Ann\nsample_id,label\n# the, blurred\n20,dog\n30 # dark,cat\n")
    found = xaicli.open_run(tmp_path / "run").relabel_apply(file).data
    assert found.select("sample_id", "label").rows() == [(20, 1), (30, 0)]


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_written_ids_that_look_like_remarks_are_ids(kind: str, tmp_path: Path) -> None:
    for odd in (["1 # 2", "3", "#", "# 4"], ["1 # 2", "3\t# 4"], ["# 1", "b", "#c"]):
        for beside in ({}, {"loss": 1.0, "why": "# 1"} if kind == "csv" else {}):
            file = write_list(pl.DataFrame({"sample_id": odd, **beside}), tmp_path / f"odd.{kind}")
            assert read_ids([f"@{file}"]) == odd
            assert table_of([*odd, "1"], select=file).sample_ids == odd


def test_a_list_of_no_row_names_no_sample(tmp_path: Path) -> None:
    for kind in ("csv", "parquet", "json", "jsonl"):
        rows = pl.DataFrame(schema={"sample_id": pl.Int64, "label": pl.String})
        with pytest.raises(XaiError, match="names no sample"):
            table_of([1, 2], relabel=write_list(rows, tmp_path / f"none.{kind}"))


def test_files_of_people(tmp_path: Path) -> None:
    """A byte order mark, UTF-16, semicolons, blank lines, an id twice."""
    ids = ["x1", "x2", "x3"]
    for name, content in (
        ("bom.csv", b"\xef\xbb\xbfsample_id,note\r\nx1,a\r\nx3,b\r\n"),
        ("wide.txt", "x1\r\n\r\nx3\r\n".encode("utf-16")),
        ("semicolons.csv", b"sample_id;note\nx1;a,b\nx3;c\n"),
        ("tabs.tsv", b"note\tsample_id\n1\tx1\n2\tx3\n"),
        ("heading.txt", b"sample_id\nx1\nx3\n"),
        ("plain.json", b'["x1", "x3"]'),
    ):
        (tmp_path / name).write_bytes(content)
        assert table_of(ids, select=tmp_path / name).sample_ids == ["x1", "x3"], name
    (tmp_path / "twice.txt").write_text("x1\nx1\nx9\n")
    with pytest.warns(UserWarning, match="names a sample again") as told:
        assert len(table_of(ids, select=tmp_path / "twice.txt")) == 1
    said = " ".join(str(warning.message) for warning in told)
    assert "1 row of" in said
    assert "x9" in said
    (tmp_path / "other.txt").write_text("y1\n")
    with pytest.raises(XaiError, match="none of the 1"):
        table_of(ids, select=tmp_path / "other.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(XaiError, match="names no sample"):
        table_of(ids, select=tmp_path / "empty.txt")
    with pytest.raises(XaiError, match="cannot be read"):
        table_of(ids, select=tmp_path / "gone.csv")


def test_a_list_of_several_data_sets_is_refused(tmp_path: Path) -> None:
    rows = pl.DataFrame({"mode": ["train", "eval"], "ds_id": ["", ""], "sample_id": [1, 1]})
    path = write_list(rows, tmp_path / "list.csv")
    with pytest.raises(XaiError, match="several data sets"):
        table_of([1, 2], select=path)
    with pytest.raises(UsageError, match="several"):
        write_list(rows, tmp_path / "list.txt")


def test_weights_go_with_the_samples(tmp_path: Path) -> None:
    path = write_list(pl.DataFrame({"sample_id": ["c", "a", "b"], "weight": [0.0, 2.0, 1.0]}), tmp_path / "list.csv")
    table = table_of(["a", "b", "c", "d"], select=path)
    assert table.weights is not None
    assert dict(zip(table.sample_ids or (), table.weights.tolist(), strict=True)) == {"a": 2.0, "b": 1.0, "c": 0.0}
    assert table.indices(exclude_zero_weights=True) == [0, 1]
    with pytest.raises(XaiError, match="weights"):
        table_of(["a", "b", "c"], select=path, weights=[1, 2, 3])
    kept = table_of(["a", "b", "c"], select=["c", "a"], weights=[1, 2, 3])
    assert kept.weights is not None
    assert kept.weights.tolist() == [1.0, 3.0]
    (tmp_path / "bad.csv").write_text("sample_id,weight\na,-1\n")
    with pytest.raises(XaiError, match="weight"):
        table_of(["a"], select=tmp_path / "bad.csv")


def test_ids_alone_cannot_hold_weights(tmp_path: Path) -> None:
    """Weight 0 leaves samples out; a list of all ids would train on them."""
    rows = pl.DataFrame({"sample_id": [1, 2, 3], "weight": [0.0, 1.0, 1.0]})
    with pytest.raises(UsageError, match="weights"):
        write_list(rows, tmp_path / "list.txt")
    assert not (tmp_path / "list.txt").exists()
    assert write_list(rows.with_columns(weight=1.0), tmp_path / "list.txt").read_text() == "1\n2\n3\n"


def test_numbers_as_spreadsheets_write_them(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("sample_id;weight\n7.0;0,5\n9;2\n")
    table = table_of([7, 8, 9], select=tmp_path / "list.csv")
    assert table.sample_ids == [7, 9]
    assert table.weights is not None
    assert table.weights.tolist() == [0.5, 2.0]
    (tmp_path / "list.csv").write_text("sample_id;weight\n7;1,000,5\n")
    with pytest.raises(XaiError, match="no weight"):
        table_of([7], select=tmp_path / "list.csv")


def test_the_answer_of_select_is_a_list(sample_run: Path) -> None:
    found = xaicli.open_run(sample_run).select(rule="hardest", n=5, mode="train")
    table = xaicli.Table(list(range(2000)), select=found)
    assert [table[row] for row in range(5)] == sorted(found.data["sample_id"])


def test_a_sampler_takes_the_chosen_by_weight(tmp_path: Path) -> None:
    from torch.utils.data import SubsetRandomSampler, WeightedRandomSampler

    ids = ["a", "b", "c", "d"]
    path = write_list(pl.DataFrame({"sample_id": ["d", "b"]}), tmp_path / "list.txt")
    sampler = xaicli.sampler_of(path, ids)
    assert isinstance(sampler, SubsetRandomSampler)
    assert sorted(sampler) == [1, 3]
    assert list(xaicli.sampler_of([2], 4)) == [2]
    weighed = write_list(pl.DataFrame({"sample_id": ids, "weight": [0.0, 3.0, 1.0, 0.0]}), tmp_path / "list.csv")
    drawn = xaicli.sampler_of(weighed, table_of(ids), n=4000, seed=3)
    assert isinstance(drawn, WeightedRandomSampler)
    times = Counter(drawn)
    assert set(times) == {1, 2}
    assert times[1] / 4000 == pytest.approx(0.75, abs=0.03)
    assert len(xaicli.sampler_of(weighed, ids)) == 2  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weight"):
        xaicli.sampler_of(path, ids, n=3)


def test_corrected_labels_stand_in_place_of_those_recorded(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "corrections.csv"
    path.write_text("sample_id,label,by,when\nb,2,ann,2026-01-01\nc,,ann,\n")
    ids = ["a", "b", "c"]
    kinds: list[tuple[Any, Any]] = [
        ([("x", 0), ("x", 0), ("x", 0)], 2),
        ([("x", np.int64(0))] * 3, np.int64(2)),
        ([("x", torch.tensor(0))] * 3, torch.tensor(2)),
        ([{"label": 0, "input": "x"}] * 3, 2),
        ([["x", 0.0]] * 3, 2.0),
        ([("x", "0")] * 3, "2"),
    ]
    for rows, expected in kinds:
        table = xaicli.Table(rows, ids=ids, relabel=path)
        key = "label" if isinstance(rows[0], dict) else 1
        assert table[0] == rows[0]
        assert table[2] == rows[2]
        assert table[1][key] == expected
        assert type(table[1][key]) is type(expected)
        assert type(table[1]) is type(rows[1])
    assert xaicli.Table([("x", 0, "more")] * 3, ids=ids, relabel=path, label=1)[1] == ("x", 2, "more")
    with pytest.raises(XaiError, match="where is the label"):
        xaicli.Table([("x", 0, "more")] * 3, ids=ids, relabel=path)
    with pytest.raises(XaiError, match="no 'label'"):
        xaicli.Table([{"target": 0}] * 3, ids=ids, relabel=path)
    assert xaicli.Table([{"target": 0}] * 3, ids=ids, relabel=path, label="target")[1] == {"target": 2}
    with pytest.raises(XaiError, match="cannot stand in place"):
        xaicli.Table([("x", 0)] * 3, ids=ids, relabel={"b": "owl"})
    schema = {"label": xaicli.CategoricalLabel("label", ["cat", "dog", "owl"])}
    assert xaicli.Table([("x", 0)] * 3, ids=ids, relabel={"b": "owl"}, schema=schema)[1] == ("x", 2)
    assert xaicli.Table([("x", [0, 1])] * 3, ids=ids, relabel={"b": "[2]"})[1] == ("x", [2])
    for number in (path, {"b": 2}):  # a number is no name, and "2" would be a class of its own
        with pytest.raises(XaiError, match="is a number, and the data set has names: 'cat'"):
            xaicli.Table([("x", "cat")] * 3, ids=ids, relabel=number)
        assert xaicli.Table([("x", "cat")] * 3, ids=ids, relabel=number, schema=schema)[1] == ("x", "owl")
    both = xaicli.Table([("x", 0)] * 3, ids=ids, relabel=path, select=["b"])
    assert (len(both), both[0]) == (1, ("x", 2))
    with pytest.raises(UsageError, match="relabel"):
        xaicli.Table([("x", 0)] * 3, label=1)


def run_of(path: Path) -> Path:
    with xaicli.Run(path) as run:
        for mode, ds_id in (("train", ""), ("eval", "x"), ("eval", "y")):
            run.log_samples(
                sample_id=["a,b", "=c", "d\ne", "é"],
                label=[0, 1, 0, 1],
                loss=[4.0, 3.0, 2.0, 1.0],
                mode=mode,
                ds_id=ds_id,
                epoch=1,
            )
    return path


def test_the_command_writes_the_list_and_as_many_at_random(xai: Any, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    asked = ("select", run, "--mode", "train", "--rule", "hardest", "--n", "2")
    status, out, _ = xai(*asked, "-o", tmp_path / "out" / "hard.csv", "-q")
    assert status == 0
    assert out.split() == [str(tmp_path / "out" / name) for name in ("hard.csv", "hard-random.csv")]
    assert table_of(["a,b", "=c", "d\ne", "é"], select=tmp_path / "out" / "hard.csv").sample_ids == ["a,b", "=c"]
    assert len(pl.read_csv(tmp_path / "out" / "hard-random.csv")) == 2
    status, out, _ = xai(*asked, "-o", "-")
    assert (status, out) == (0, "a,b\n=c\n")
    status, out, _ = xai(*asked, "--json")
    found = json.loads(out)
    assert set(found) >= {"schema_version", "command", "run", "selection", "warnings", "outputs", "counts", "rows"}
    assert [row["sample_id"] for row in found["rows"]] == ["a,b", "=c"]
    assert len(found["random"]) == 2
    status, out, _ = xai(*asked, "--format", "parquet,html", "-o", tmp_path / "folder", "-q")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "select-random.parquet",
        "select.html",
        "select.parquet",
    ]
    page = (tmp_path / "folder" / "select.html").read_text()
    assert "how this was made" in page.lower()
    assert "The worst left out" in page
    assert "--rule hardest --n 2" in re.sub("</?span>", "", page)


def test_an_answer_comes_where_the_list_cannot_be_written(xai: Any, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    asked = ("select", run, "--rule", "hardest", "--n", "2")
    status, out, err = xai(*asked, "--json", "-o", tmp_path / "list.txt")
    assert status == 2
    assert len(json.loads(out)["rows"]) == 4
    assert "several" in err
    (tmp_path / "file").write_text("")
    status, out, err = xai(*asked, "--mode", "train", "--json", "-o", tmp_path / "file" / "list.csv")
    assert (status, len(json.loads(out)["rows"])) == (1, 2)
    assert "error: " in err
    status, _, err = xai(*asked, "--json", "-o", "-")
    assert (status, "standard output" in err) == (2, True)


def test_messages_name_a_frame_and_do_not_print_it() -> None:
    frame = pl.DataFrame({"sample_id": [0, 1], "weight": [0.0, 0.0]})
    with pytest.raises(XaiError) as error:
        xaicli.sampler_of(frame, 3)
    assert error.value.message == "all samples of the given DataFrame weigh nothing"
    with pytest.warns(UserWarning, match=r"^1 row of the given list names a sample again: its last one counts$"):
        xaicli.Table([0, 1], select=[0, 0])
    with pytest.warns(UserWarning, match=r"^1 of the 2 samples of the given list is not in the data set: 7$"):
        xaicli.Table([0, 1], select=[0, 7])


def test_the_processes_of_a_distributed_training_share_the_draws_of_one() -> None:
    whole = [int(i) for i in xaicli.sampler_of([1, 3, 4, 7, 9], 10, seed=3)]
    shares = [list(xaicli.sampler_of([1, 3, 4, 7, 9], 10, seed=3, rank=rank, world_size=2)) for rank in range(2)]
    assert shares == [[whole[0], whole[2], whole[4]], [whole[1], whole[3], whole[0]]]
    assert sorted(whole) == [1, 3, 4, 7, 9]
    weights = pl.DataFrame({"sample_id": range(10), "weight": [0.0] * 5 + [1.0] * 4 + [6.0]})
    samplers = [xaicli.sampler_of(weights, 10, n=1000, seed=1, rank=rank, world_size=4) for rank in range(4)]
    epochs = [[list(sampler) for sampler in samplers] for _ in range(2)]
    assert all(len(part) == 250 == len(sampler) for part, sampler in zip(epochs[0], samplers, strict=True))
    every = [i for part in epochs[0] for i in part]
    assert set(every) == {5, 6, 7, 8, 9}
    assert abs(every.count(9) / 1000 - 0.6) < 0.06
    assert epochs[0] != epochs[1]
    assert epochs[0][0] != epochs[0][1]
    with pytest.raises(UsageError, match="rank 2 is none of 2 processes"):
        xaicli.sampler_of([1], 10, rank=2, world_size=2)


@pytest.mark.parametrize("last", ["owl", [1], 0.5])
def test_a_correction_that_cannot_be_made_is_said_at_once_wherever_it_stands(last: object) -> None:
    data = [(np.zeros(2), i % 2) for i in range(6)]
    with pytest.raises(XaiError, match=r"sample 4: label .* cannot stand in place of 0"):
        xaicli.Table(data, relabel={0: 1, 1: 0, 4: last})
    corrected = xaicli.Table(data, relabel={0: 1, 4: 1})
    assert [corrected[i][1] for i in range(6)] == [1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pkl", "x.xlsx", "x.PT"])
def test_what_is_named_as_another_file_is_no_list(sample_run: Path, xai: Any, tmp_path: Path, name: str) -> None:
    words = ("select", sample_run, "--mode", "train", "--rule", "hardest", "--n", "2", "-o", tmp_path / name)
    status, _, error = xai(*words)
    assert (status, f"{name} is no list of samples" in error, "txt, csv, parquet, json, jsonl" in error) == (
        2,
        True,
        True,
    )
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert xai(*words)[0] == 0
    assert (tmp_path / name / "select.txt").is_file()
