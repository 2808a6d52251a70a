"""Which samples and checkpoints `xai saliency` takes, and how a value is told from a class."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xaicli import Run, open_run
from xaicli.api.opening import find_place
from xaicli.diagnosis.slicing import kept_inputs
from xaicli.queries.media import thumbnails

torch = pytest.importorskip("torch")


def test_an_id_without_kept_inputs_is_no_mistyped_one(xai, sample_run: Path, tmp_path: Path) -> None:
    status, _, err = xai("saliency", sample_run, "--model", "ckpt.pt", "--ids", "3", "-o", tmp_path)
    assert status == 1
    assert re.search(r"sample 3 is not among the inputs kept in .*run, \d+ samples", err)
    assert "--data" in err
    assert "did you mean" not in err


def test_a_pick_among_kept_inputs_says_so(xai, sample_run: Path, tmp_path: Path) -> None:
    question = ["saliency", sample_run, "--model", "ckpt.pt", "--samples", "2", "--methods", "gradient", "--json"]
    status, out, err = xai(*question, "--pick", "worst", "-o", tmp_path, "--format", "csv")
    assert status == 0, err
    answer = json.loads(out)
    told = "the worst are picked among the 360 samples whose inputs the run kept: --data picks among others"
    assert told in answer["warnings"]
    status, out, _ = xai(*question, "-o", tmp_path, "--format", "csv")
    assert status == 0
    assert not [warning for warning in json.loads(out)["warnings"] if "picked" in warning]


def _kept_in_two_modes(path: Path) -> None:
    """Ids 0 to 39 of train and 100 to 139 of eval; inputs kept of 4 each, whose losses interleave."""
    torch.manual_seed(0)
    with Run(path, label_names=["a", "b"]) as run:
        for mode, first, add in (("train", 0, 0.5), ("eval", 100, 0.0)):
            ids = list(range(first, first + 40))
            # In train the losses are in all higher, and those of the kept are its lowest: 0.5 to 3.5; of eval 0 to 3.
            loss = [place + add if place < 4 else (50.0 if mode == "train" else 0.01) for place in range(40)]
            for epoch in (1, 2):
                values = loss if epoch == 2 else loss[::-1]
                run.log_samples(sample_id=ids, label=[0] * 40, loss=values, mode=mode, epoch=epoch, step=epoch)
            run.state.mode = mode
            run.log_inputs(ids[:4], np.ones((4, 3), np.float32), label=[0] * 4)
        run.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))


def _picked(xai, run: Path, out: Path, *more: object) -> tuple[list[int], dict[str, object], list[str]]:
    question = ["saliency", run, "--model", "ckpt.pt", "--methods", "gradient", "--json", "-o", out]
    status, printed, err = xai(*question, *more)
    assert status == 0, err
    answer = json.loads(printed)
    return [row["sample_id"] for row in answer["rows"]], answer["selection"].get("picked"), answer["warnings"]


def test_kept_inputs_of_all_modes_are_ranked_together_each_by_its_own_mode(xai, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _kept_in_two_modes(run)
    ids, how, said = _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "3")
    assert ids == [3, 103, 2]
    assert how == {"pick": "worst", "metric": "loss", "mode": ["train", "eval"], "ds_id": [""]}
    assert "the worst are picked among the 8 samples whose inputs the run kept: --data picks among others" in said
    assert "the worst by loss of mode train and eval" in (tmp_path / "saliency.html").read_text()
    # Of one and the same command, the worst 8 of 8 are all, the first 8 too.
    assert _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "8")[0] == [3, 103, 2, 102, 1, 101, 0, 100]
    assert _picked(xai, run, tmp_path, "--pick", "best", "--samples", "3")[0] == [100, 0, 101]
    ids, how, said = _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "3", "--mode", "eval")
    assert (ids, how) == ([103, 102, 101], {"pick": "worst", "metric": "loss", "mode": ["eval"], "ds_id": [""]})
    told = "the worst are picked among the 4 samples of mode eval whose inputs the run kept: --data picks among others"
    assert told in said
    assert _picked(xai, run, tmp_path, "--samples", "2")[1] is None


def test_fewer_than_were_asked_for_are_told(xai, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _kept_in_two_modes(run)
    np.savez(tmp_path / "own.npz", x=np.ones((6, 3), np.float32), sample_id=[0, 1, 2, 100, 101, 102])
    asked = ("--pick", "worst", "--data", tmp_path / "own.npz")
    ids, _, said = _picked(xai, run, tmp_path, *asked, "--samples", "4")
    assert ids == [102, 101, 100]
    assert "3 of 4 were picked: no more have a logged loss in mode eval: --mode ranks by another's" in said
    ids, _, said = _picked(xai, run, tmp_path, *asked, "--metric", "loss", "--samples", "3")
    assert (len(ids), [line for line in said if "were picked" in line]) == (3, [])


def test_inputs_kept_without_a_mode_are_ranked_by_the_values_of_the_mode_asked_for(xai, tmp_path: Path) -> None:
    run = tmp_path / "run"
    losses = {
        ("train", ""): [1.0, 2.0, 3.0, 4.0],
        ("eval", "day"): [8.0, 7.0, 6.0, 5.0],
        ("eval", "night"): [5, 9, 5, 5],
    }
    with Run(run) as recorded:
        recorded.log_inputs(range(4), np.ones((4, 3), np.float32), label=[0] * 4)
        for (mode, ds_id), values in losses.items():
            recorded.log_samples(sample_id=range(4), label=[0] * 4, loss=values, mode=mode, ds_id=ds_id, epoch=1)
        recorded.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    worst = ("--pick", "worst", "--samples", "2")
    assert _picked(xai, run, tmp_path, *worst)[0] == [1, 0]
    assert _picked(xai, run, tmp_path, *worst, "--mode", "train")[0] == [3, 2]
    assert _picked(xai, run, tmp_path, *worst, "--mode", "eval", "--ds-id", "day")[0] == [0, 1]
    assert _picked(xai, run, tmp_path, *worst, "--ds-id", "night")[0][0] == 1
    assert _picked(xai, run, tmp_path, "--mode", "eval")[0] == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def kept_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples 0 to 3 of train, 4 to 7 of eval day, 8 to 11 of eval night; inputs of all kept behind the loops."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("behind") / "run"
    with Run(folder, label_names=["a", "b"], strict=True) as run:
        for _ in run.epochs(2):
            for place, (mode, ds_id) in enumerate((("train", ""), ("eval", "day"), ("eval", "night"))):
                for ids in run.steps([list(range(4 * place, 4 * place + 4))], mode=mode, ds_id=ds_id):
                    run.log_samples(sample_id=ids, label=[0] * 4, loss=[float(i % 4) + place / 10 for i in ids])
        run.log_inputs(range(12), np.eye(12, 3, dtype=np.float32), label=[0] * 12)
        run.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    return folder


@pytest.mark.parametrize(
    ("asked", "expected", "left_out"),
    [
        (("--pick", "worst"), [11, 7, 3, 10], ""),
        (("--pick", "best"), [0, 4, 8, 1], ""),
        (("--pick", "worst", "--mode", "train"), [3, 2, 1, 0], "8 of the 12 inputs"),
        (("--pick", "worst", "--ds-id", "night"), [11, 10, 9, 8], "8 of the 12 inputs"),
        (("--mode", "train"), [0, 1, 2, 3], "8 of the 12 inputs"),
        (("--mode", "eval", "--ds-id", "day"), [4, 5, 6, 7], "8 of the 12 inputs"),
        (("--mode", "!train"), [4, 5, 6, 7], "4 of the 12 inputs"),
        (("--mode", "all"), [0, 1, 2, 3], ""),
        ((), [0, 1, 2, 3], ""),
    ],
)
def test_inputs_kept_behind_the_loops_are_of_the_samples_with_their_ids(
    xai, kept_behind: Path, tmp_path: Path, asked: tuple[str, ...], expected: list[int], left_out: str
) -> None:
    ids, _, said = _picked(xai, kept_behind, tmp_path, *asked, "--samples", "4")
    assert ids == expected
    told = [line for line in said if "kept without a mode are of no sample of" in line]
    assert [line.startswith(left_out) for line in told] == ([True] if left_out else [])


@pytest.mark.parametrize(("command", "how"), [("saliency", ()), ("collect", ("--split", "more"))])
def test_a_mode_named_that_has_no_input_of_the_data_set_asked_for_is_told(
    xai, kept_behind: Path, tmp_path: Path, command: str, how: tuple[str, ...]
) -> None:
    words = (command, kept_behind, "--model", "ckpt.pt", "--ds-id", "day", "--format", "csv", "-o", tmp_path, *how)
    for mode, told in (("train,eval", True), ("eval", False), ("!train", False)):
        status, _, err = xai(*words, "--mode", mode)
        assert (status, "train is left out: it has no input of ds_id day" in " ".join(err.split())) == (0, told), err


@pytest.fixture(scope="module")
def kept_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples 0 to 7 of eval, 6 to 9 of train; inputs of 4 to 7 kept in eval, of 0 to 9 behind the loops."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("twice") / "run"
    with Run(folder, label_names=["a", "b"], strict=True) as run:
        for _ in run.epochs(1):
            for ids in run.steps([list(range(6, 10))], mode="train"):
                run.log_samples(sample_id=ids, label=[0] * 4, loss=[float(i) + 0.5 for i in ids])
            for ids in run.steps([list(range(8))], mode="eval"):
                run.log_samples(sample_id=ids, label=[0] * 8, loss=[float(i) for i in ids])
                run.log_inputs(ids[4:], np.ones((4, 3), np.float32), label=[0] * 4)
        run.log_inputs(range(10), np.zeros((10, 3), np.float32), label=[0] * 10)
        run.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    return folder


_OF_EVAL = {*((None, n) for n in range(4)), *(("eval", n) for n in range(4, 8))}
_OF_TRAIN = {(None, n) for n in range(6, 10)}
_STOOD_FOR = "of the 10 inputs that were kept without a mode are of samples that have one kept in eval: that one stands"


@pytest.mark.parametrize("pick", ["first", "random", "worst", "best", "ids"])
@pytest.mark.parametrize(
    ("mode", "expected", "stood_for"),
    [(None, _OF_EVAL | _OF_TRAIN, 2), ("all", _OF_EVAL | _OF_TRAIN, 2), ("eval", _OF_EVAL, 4), ("train", _OF_TRAIN, 0)],
)
def test_an_input_kept_in_a_mode_stands_for_its_sample_however_samples_are_chosen(
    xai, kept_twice: Path, tmp_path: Path, pick: str, mode: str | None, expected: set[tuple[str, int]], stood_for: int
) -> None:
    question = ["saliency", kept_twice, "--model", "ckpt.pt", "--methods", "gradient", "--json", "-o", tmp_path]
    of = sorted({n for _, n in expected})
    chosen = ["--ids", ",".join(map(str, of))] if pick == "ids" else ["--pick", pick, "--samples", "20"]
    status, out, err = xai(*question, "--format", "csv", *chosen, *(["--mode", mode] if mode else []))
    assert status == 0, err
    answer = json.loads(out)
    told = [(row.get("mode") or None, row["sample_id"]) for row in answer["rows"]]
    assert len(told) == len(set(told))
    assert set(told) == expected
    said = answer["warnings"]
    assert [line for line in said if _STOOD_FOR in line] == (
        [f"{stood_for} {_STOOD_FOR} for them"] if stood_for else []
    )
    beside = "2 of the 10 inputs that were kept without a mode have the id of one kept in eval: they stand for samples"
    assert [line for line in said if beside in line] == ([f"{beside} of train"] if mode in (None, "all") else [])
    assert not [line for line in said if "of the others no loss" in line]
    if pick != "ids":
        held = "the run kept inputs of no more" + (" that --mode and --ds-id choose" if mode else "")
        assert f"{len(expected)} of the 20 samples asked for are there: {held}" in said
    if pick in ("worst", "best"):
        worth = {**{("eval", n): n for n in range(8)}, **{("train", n): n + 0.5 for n in range(6, 10)}}
        of_each = [worth.get(("eval" if m or n < 4 else "train", n)) for m, n in told]
        assert of_each == sorted(of_each, reverse=pick == "worst")
        named = {None: "", "all": "", "eval": " of mode eval", "train": " of mode train"}[mode]
        among = f"the {pick} are picked among the {len(expected)} samples{named} whose inputs the run kept"
        assert f"{among}: --data picks among others" in said


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # Of 6 an own input is kept in eval: what was kept behind the loops is that of train.
        (("6,2",), {("eval/", "6&at=eval%2F"), ("train/", "6&at=train%2F"), ("", "2")}),
        (("6,2", "--mode", "eval"), {("eval/", "6&at=eval%2F"), ("eval/", "2&at=eval%2F")}),
        (("6", "--mode", "train"), {("train/", "6&at=train%2F")}),
    ],
)
def test_the_history_of_an_input_kept_without_a_mode_is_that_of_the_sample_it_stands_for(
    xai, kept_twice: Path, tmp_path: Path, asked: tuple[str, ...], expected: set[tuple[str, str]]
) -> None:
    question = ["saliency", kept_twice, "--model", "ckpt.pt", "--methods", "gradient", "-o", tmp_path]
    status, _, err = xai(*question, "--format", "html", "--ids", *asked)
    assert status == 0, err
    page = html.unescape((tmp_path / "saliency.html").read_text())
    rows = re.findall(r'<article class="maprow"([^>]*)>(.*?)</article>', page, re.DOTALL)
    found = set()
    for attributes, inside in rows:
        at = re.search(r'data-at="([^"]*)"', attributes)
        link = re.search(r'href="track-report.html#s=([^"]*)"', inside)
        found.add((at[1] if at else "", link[1] if link else ""))
    assert found == expected


@pytest.fixture(scope="module")
def day_and_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples 0 to 5 of train, eval day and night; inputs of 0 to 2 kept in the night, of 0, 1 and 3 in no mode."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sets") / "run"
    with Run(folder, strict=True) as run:
        for mode, ds_id in (("train", ""), ("eval", "day"), ("eval", "night")):
            for ids in run.steps([list(range(6))], mode=mode, ds_id=ds_id):
                run.log_samples(sample_id=ids, label=[0] * 6, loss=[float(i) for i in ids], epoch=1)
                if ds_id == "night":
                    run.log_inputs(ids[:3], np.ones((3, 3), np.float32))
        run.log_inputs([0, 1, 3], np.zeros((3, 3), np.float32))
        run.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    return folder


_NIGHT, _DAY, _TRAIN = ({(n, at) for n in range(6)} for at in ("eval/night", "eval/day", "train/"))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # What is kept without a mode stands for samples without an input of their own: 0 and 1 have one of the night.
        ((), {(n, at) for n, at in _NIGHT if n < 4} | {(n, at) for n, at in _DAY | _TRAIN if n in (0, 1, 3)}),
        (("--ds-id", "!night"), {(n, at) for n, at in _DAY | _TRAIN if n in (0, 1, 3)}),
        (("--mode", "eval"), {(n, at) for n, at in _NIGHT if n < 4} | {(n, at) for n, at in _DAY if n in (0, 1, 3)}),
        (("--ds-id", "day"), {(n, at) for n, at in _DAY if n in (0, 1, 3)}),
    ],
)
def test_a_history_is_linked_with_a_map_that_is_of_its_own_input(
    xai, day_and_night: Path, tmp_path: Path, asked: tuple[str, ...], expected: set[tuple[int, str]]
) -> None:
    folder = [day_and_night, "-o", tmp_path, "--format", "html"]
    assert xai("saliency", *folder, "--model", "ckpt.pt", "--methods", "gradient", *asked)[0] == 0
    assert xai("track-report", *folder, "--mode", "all", "--max", "0", "--min", "0", "--ids", "0,1,2,3,4,5")[0] == 0
    page = html.unescape((tmp_path / "track-report.html").read_text())
    links = re.findall(r'<a href="saliency.html#s=(\d)&at=([^"]*)"', page)
    assert {(int(n), unquote(at)) for n, at in links} == expected
    # And back: every map leads to a history.
    page = (tmp_path / "saliency.html").read_text()
    assert 'data-href="track-report' not in page
    assert '<a href="track-report' in page
    assert '<header data-absent="ask for it with --ids, if the run kept its input">' in page


def test_pages_of_two_runs_in_one_folder_are_not_linked(
    xai, day_and_night: Path, kept_twice: Path, tmp_path: Path
) -> None:
    written = ["-o", tmp_path, "--format", "html"]
    assert xai("saliency", kept_twice, "--model", "ckpt.pt", "--methods", "gradient", *written)[0] == 0
    for run, leads in ((kept_twice, True), (day_and_night, False)):
        assert xai("track-report", run, "--mode", "all", *written)[0] == 0
        for page, other in (("track-report", "saliency"), ("saliency", "track-report")):
            assert (f'<a href="{other}.html#' in (tmp_path / f"{page}.html").read_text()) is leads


def test_how_samples_were_picked_is_said_in_words(xai, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Run(run) as recorded:
        for ds_id, first in (("", 0), ("day", 2), ("night", 4)):
            for ids in recorded.steps([[first, first + 1]], mode="eval", ds_id=ds_id):
                recorded.log_samples(sample_id=ids, loss=[1.0, 2.0], epoch=1)
        recorded.log_inputs(range(7), np.ones((7, 3), np.float32))
        recorded.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    _, how, said = _picked(xai, run, tmp_path, "--pick", "worst")
    assert how == {"pick": "worst", "metric": "loss", "mode": ["eval"], "ds_id": ["", "day", "night"]}
    where = 'logged in mode eval of data set "", day and night'
    assert [line for line in said if f"of the others no loss is {where}: --data picks" in line]
    page = html.unescape((tmp_path / "saliency.html").read_text())
    assert '<dt>picked</dt><dd>pick: worst, metric: loss, mode: eval, ds id: "", day and night</dd>' in page
    assert 'the worst by loss of mode eval of data set "", day and night' in page


def test_an_id_that_mode_and_ds_id_leave_out_is_told_from_one_without_inputs(
    xai, kept_behind: Path, tmp_path: Path
) -> None:
    """Kept in a mode or without one, and listed in words or in a file."""
    placed = tmp_path / "run"
    with Run(placed) as run:
        for _ in run.epochs(1):
            for mode, ds_id, first in (("train", "", 0), ("eval", "day", 4), ("eval", "night", 8)):
                for ids in run.steps([list(range(first, first + 4))], mode=mode, ds_id=ds_id):
                    run.log_samples(sample_id=ids, label=[0] * 4, loss=[1.0] * 4)
                    run.log_inputs(ids, np.ones((4, 3), np.float32), label=[0] * 4)
        run.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    (tmp_path / "hard.txt").write_text("0\n")
    for folder in (kept_behind, placed):
        for asked, options in (
            (("0", "--mode", "eval"), "--mode eval"),
            ((f"@{tmp_path / 'hard.txt'}", "--mode", "eval"), "--mode eval"),
            (("4", "--ds-id", "night"), "--ds-id night"),
            (("4", "--mode", "eval", "--ds-id", "night"), "--ds-id night"),
            (("0", "--mode", "eval", "--ds-id", "night"), "--mode eval, --ds-id night"),
            (("8", "--ds-id", "!night"), "--ds-id !night"),
        ):
            question = ["saliency", folder, "--model", "ckpt.pt", "--methods", "gradient", "-o", tmp_path, "--ids"]
            status, _, err = xai(*question, *asked)
            assert status == 1
            assert "is among the inputs kept in" in err, err
            assert f"but not among those chosen\nhint: left out by {options}\n" in err
        status, _, err = xai(*question, "99", "--mode", "eval")
        assert "sample 99 is not among the inputs kept in" in err
        assert "run, 12 samples\n" in err
        ids, _, said = _picked(xai, folder, tmp_path, "--ids", "0,5,9,4,99", "--ds-id", "night")
        assert ids == [9]
        told = [line for line in said if " of 5 ids are " in line]
        assert told[0] == "3 of 5 ids are left out by --ds-id night: 0, 5, 4"
        assert told[1].startswith("1 of 5 ids are not among the inputs kept in")


def test_inputs_kept_twice_are_collected_once(xai, kept_twice: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(kept_twice, run)
    status, out, err = xai("collect", run, "--model", "ckpt.pt", "--mode", "eval", "--json", "-o", tmp_path)
    assert status == 0, err
    assert pq.read_table(next((run / "tables").rglob("*.parquet"))).num_rows == 8
    assert f"4 {_STOOD_FOR} for them" in out


def test_a_listed_id_that_was_never_logged_where_its_list_says_is_told(xai, kept_twice: Path, tmp_path: Path) -> None:
    rows = [("train", 8), ("eval", 2), ("train", 1), ("eval", 9)]
    (tmp_path / "hard.csv").write_text("sample_id,mode,ds_id\n" + "".join(f"{n},{mode},\n" for mode, n in rows))
    ids, _, said = _picked(xai, kept_twice, tmp_path, "--ids", f"@{tmp_path / 'hard.csv'}")
    assert ids == [8, 2, 1, 9]
    never = "2 of the 4 listed ids were never logged in train, eval, where their list has them: what is explained is"
    assert [line for line in said if line.startswith(never)] == [
        f"{never} the input that was kept of them without a mode"
    ]
    (tmp_path / "hard.csv").write_text("sample_id,mode,ds_id\n8,train,\n2,eval,\n5,eval,\n")
    assert not [
        line for line in _picked(xai, kept_twice, tmp_path, "--ids", f"@{tmp_path / 'hard.csv'}")[2] if "never" in line
    ]


def test_a_mode_that_the_run_lacks_is_told_from_one_without_inputs(xai, kept_twice: Path, tmp_path: Path) -> None:
    status, _, err = xai("saliency", kept_twice, "--model", "ckpt.pt", "--mode", "infer", "-o", tmp_path)
    assert status == 1
    assert "holds no kept inputs of mode infer\nhint: the run has no mode infer; there are some of mode eval" in err
    run = tmp_path / "run"
    with Run(run) as recorded:
        recorded.log_samples(sample_id=[0], loss=[1.0], mode="infer", epoch=1)
        recorded.log_inputs([1], np.ones((1, 3), np.float32))
        recorded.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    status, _, err = xai("saliency", run, "--model", "ckpt.pt", "--mode", "infer", "-o", tmp_path)
    assert (status, "the run has no mode" in err) == (1, False)


def test_inputs_kept_behind_the_loops_lead_to_their_histories_and_are_collected(
    xai, kept_behind: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(kept_behind, run)
    asked = [run, "--mode", "all", "-o", tmp_path, "--format", "html"]
    assert xai("saliency", *asked, "--model", "ckpt.pt", "--methods", "gradient", "--ids", "2,9")[0] == 0
    assert xai("track-report", *asked, "--ids", "2,9", "--max", "0", "--min", "0")[0] == 0
    page = (tmp_path / "track-report.html").read_text()
    assert re.findall(r'<a href="(saliency[^"]*)"', page) == [
        f"saliency.html#s={n}&amp;at={at}" for n, at in ((2, "train%2F"), (9, "eval%2Fnight"))
    ]
    assert re.findall(r'<a href="(track[^"]*)"', (tmp_path / "saliency.html").read_text()) == [
        f"track-report.html#s={n}&amp;at={at}" for n, at in ((2, "train%2F"), (9, "eval%2Fnight"))
    ]
    status, _, err = xai("saliency", run, "--model", "ckpt.pt", "--mode", "test", "-o", tmp_path)
    assert (status, "holds no kept inputs of mode test" in err) == (1, True)
    question = ["collect", run, "--model", "ckpt.pt", "--mode", "eval", "--ds-id", "night", "--json", "-o", tmp_path]
    status, _, err = xai(*question)
    assert status == 0, err
    table = pq.read_table(next((run / "tables").rglob("*.parquet")))
    assert table.num_rows == 4


def test_a_map_of_an_input_of_no_mode_beside_others_leads_to_the_sample_of_its_id(xai, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Run(run) as recorded:
        for ids in recorded.steps([[7]], mode="train"):
            recorded.log_samples(sample_id=[7, 8], loss=[1.0, 2.0], epoch=1)
            recorded.log_inputs(ids, np.ones((1, 3), np.float32))
        recorded.log_inputs([8], np.ones((1, 3), np.float32))
        recorded.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    _picked(xai, run, tmp_path, "--ids", "7,8")
    page = (tmp_path / "saliency.html").read_text()
    links = re.findall(r'href="(track[^"]*)"', page)
    assert sorted(links) == ["track-report.html#s=7&amp;at=train%2F", "track-report.html#s=8"]


def test_kept_inputs_without_a_value_are_not_said_to_be_data(xai, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Run(run) as recorded:
        recorded.log_samples(sample_id=[0], loss=[1.0], mode="train", epoch=1)
        recorded.log_samples(sample_id=[1], loss=[1.0], size=[1.0], mode="eval", epoch=1)
        recorded.log_inputs([0], np.ones((1, 3), np.float32))
        recorded.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    status, _, err = xai("saliency", run, "--model", "ckpt.pt", "--pick", "worst", "--metric", "size")
    assert status == 1
    assert "of none of the 1 samples whose inputs the run kept is a size logged in " in err


def test_kept_inputs_that_cannot_be_ranked_are_counted(xai, tmp_path: Path) -> None:
    """Samples 0 to 3 are of day, 4 to 7 of night; the inputs of all were kept in the walk over night."""
    run = tmp_path / "run"
    with Run(run) as recorded:
        for ds_id, ids in (("day", range(4)), ("night", range(4, 8))):
            losses = [9.0 - one for one in ids]
            recorded.log_samples(sample_id=ids, label=[0] * 4, loss=losses, mode="eval", ds_id=ds_id, epoch=1)
        recorded.state.mode, recorded.state.ds_id = "eval", "night"
        recorded.log_inputs(range(8), np.ones((8, 3), np.float32), label=[0] * 8)
        recorded.save_checkpoint(torch.nn.Linear(3, 2), "ckpt.pt", example_inputs=torch.zeros(2, 3))
    ids, _, said = _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "2")
    assert ids == [4, 5]
    others = "of the others no loss is logged in mode eval of data set night"
    assert (
        f"the worst are picked among 4 of the 8 samples whose inputs the run kept, {others}: --data picks among others"
        in said
    )
    _, _, said = _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "8")
    assert "4 of 8 were picked: no more have a logged loss in mode eval of data set night" in said


def test_a_bare_name_lies_in_the_run_and_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Run(tmp_path / "run") as run:
        for name in ("ckpt-02.pt", "ckpt-10.pt"):
            path = run.save_checkpoint(torch.nn.Linear(3, 2), name, example_inputs=torch.zeros(2, 3))
            assert path == run.layout.checkpoints / name
        here = run.save_checkpoint(torch.nn.Linear(3, 2), "./other.pt", example_inputs=torch.zeros(2, 3))
        assert here is not None
        assert here.resolve() == (tmp_path / "other.pt").resolve()
        assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["other.pt"]
    found = find_place(tmp_path / "run", ["ckpt-*.pt"]).checkpoints
    assert [path.name for path in found] == ["ckpt-02.pt", "ckpt-10.pt"]


@pytest.mark.parametrize("command", [("saliency", "--model"), ("collect", "--model")])
def test_a_checkpoint_that_the_newest_run_lacks_is_told_where_it_is(
    xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XAI_RUN", raising=False)
    for number, name in enumerate(("has-it", "newest")):
        Run(Path("runs") / name).close()
        os.utime(Path("runs") / name / "xai.json", (number + 1e9,) * 2)
    folder = Path("runs/has-it/checkpoints")
    folder.mkdir(exist_ok=True)
    (folder / "best.pt").touch()
    status, _, err = xai(*command, "best.pt")
    assert status == 1
    assert err.splitlines()[0] == "error: no checkpoint 'best.pt' in runs/newest/checkpoints, which has none"
    assert err.splitlines()[1].strip() == (
        "hint: looked in the default run, runs/newest; best.pt is in runs/has-it: name the run"
    )
    status, _, err = xai(*command, "other.pt")
    assert err.splitlines()[1].endswith("looked in the default run, runs/newest: name another run, or a path")
    # A run that is named is looked into, and nothing is said of others.
    status, _, err = xai(command[0], "runs/newest", command[1], "best.pt")
    assert (status, "default run" in err, "best.pt'" in err) == (1, False, True)


def test_a_value_is_told_as_a_value_whatever_it_is_called(xai, tmp_path: Path) -> None:
    from xaicli.checkpoint.save import save_checkpoint

    model = torch.nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1 / 3)
    save_checkpoint(
        model, tmp_path / "value.pt", example_inputs=torch.zeros(2, 3), task="regression", label_names=["zero"]
    )
    x = np.array([[1.0, 2.0, 4.0]], np.float32)
    table = pa.table({"sample_id": [5], "x": pa.FixedSizeListArray.from_arrays(pa.array(x[0]), 3), "label": [7.25]})
    pq.write_table(table, tmp_path / "data.parquet")
    question = ["--model", tmp_path / "value.pt", "--data", tmp_path / "data.parquet", "-o", tmp_path / "out"]
    status, _, err = xai("saliency", *question)
    assert status == 0, err
    page = (tmp_path / "out" / "saliency.html").read_text()
    assert "predicted 7.333<" in page
    assert "label 7.25<" in page
    assert "explained" not in page
    assert "zero" not in page


COLOURS = {("train", "cifar"): "red", ("eval", "cifar"): "lime", ("eval", "svhn"): "blue"}
LOSSES = {("train", "cifar"): [50, 60, 70], ("eval", "cifar"): [4, 3, 2], ("eval", "svhn"): [10, 20, 30]}
Sample = tuple[str, str, int]
FIRST = ("eval", "svhn", 0)


@pytest.fixture(scope="module")
def shared_ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples 0, 1 and 2 in each of three places, all else of which differs: picture, label, losses."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    folder = tmp_path_factory.mktemp("shared") / "run"
    with Run(folder, label_names=["ant", "bee", "cow"]) as run:
        for place, (mode, ds_id) in enumerate(COLOURS):
            x = np.full((3, 3, 4, 4), 0.1, np.float32)
            x[:, place] = 0.9
            for ids, pictures in run.steps([(np.arange(3), x)], mode=mode, ds_id=ds_id):
                labels = [place] * 3
                run.log_samples(sample_id=ids, label=labels, loss=np.array(LOSSES[mode, ds_id], float), epoch=1, step=1)
                run.log_inputs(ids, pictures, label=labels)
        for name in ("ckpt.pt", "late.pt"):
            run.save_checkpoint(model, name, example_inputs=torch.zeros(2, 3, 4, 4))
    return folder


def _maps(xai, run: Path, out: Path, *more: object) -> tuple[list[Sample], dict[str, object]]:
    """The samples of an answer; their labels, and the pictures on the page, must be those of their places."""
    question = ["saliency", run, "--model", "ckpt.pt", "--methods", "gradient", "--json", "-o", out]
    status, printed, err = xai(*question, "--format", "html,csv,json", *more)
    assert status == 0, err
    answer = json.loads(printed)
    told = [(row["mode"], row["ds_id"], row["sample_id"]) for row in answer["rows"]]
    places = [list(COLOURS).index(key[:2]) for key in told]
    assert [row["label"] for row in answer["rows"]] == places
    page = (out / "saliency.html").read_text()
    shown = [base64.b64decode(found) for found in re.findall(r'<image[^>]*href="data:image/\w+;base64,([^"]+)', page)]
    colours = [Image.open(io.BytesIO(one)).convert("RGB").resize((1, 1)).getpixel((0, 0)) for one in shown]
    assert [int(np.argmax(colour)) for colour in colours] == places
    return told, answer


def test_an_id_is_of_a_sample_in_each_mode_and_data_set(xai, shared_ids: Path, tmp_path: Path) -> None:
    every = [(*place, n) for place in COLOURS for n in range(3)]
    told, answer = _maps(xai, shared_ids, tmp_path)
    assert sorted(told) == sorted(every)
    page = (tmp_path / "saliency.html").read_text()
    assert "Saliency of 9 samples" in page
    assert all(f"#{n} · {mode} {ds_id}" in page for mode, ds_id, n in every)
    rows = list(csv.DictReader((tmp_path / "saliency.csv").read_text().splitlines()))
    assert [(row["mode"], row["ds_id"], int(row["sample_id"])) for row in rows] == told
    maps = np.load(tmp_path / "maps.npz")
    assert list(zip(maps["mode"], maps["ds_id"], maps["sample_id"], strict=True)) == told
    assert "mode" not in answer["selection"]
    assert sorted(_maps(xai, shared_ids, tmp_path, "--ids", "2")[0]) == sorted((*place, 2) for place in COLOURS)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("--pick", "best", "--samples", "2"), [("eval", "cifar", 2), ("eval", "cifar", 1)]),
        (("--pick", "best", "--samples", "1", "--ds-id", "svhn"), [("eval", "svhn", 0)]),
        (("--pick", "worst", "--samples", "2", "--mode", "eval"), [("eval", "svhn", 2), ("eval", "svhn", 1)]),
        (("--ids", "1", "--ds-id", "cifar", "--mode", "train"), [("train", "cifar", 1)]),
        (("--pick", "best", "--samples", "4", "--mode", "eval"), [*(("eval", "cifar", n) for n in (2, 1, 0)), FIRST]),
        (("--pick", "random", "--samples", "2", "--seed", "3"), None),
    ],
)
def test_samples_are_picked_by_their_own_values_and_asked_for_again(
    xai, shared_ids: Path, tmp_path: Path, asked: tuple[str, ...], expected: list[Sample] | None
) -> None:
    told, answer = _maps(xai, shared_ids, tmp_path, *asked)
    expected = expected or told
    assert told == expected
    if len({key[:2] for key in told}) == 1:
        assert (answer["selection"]["mode"], answer["selection"]["ds_id"]) == (expected[0][0], [expected[0][1]])
    page = (tmp_path / "saliency.html").read_text()
    (command,) = re.findall(r"xai saliency [^<]*", html.unescape(page))[:1]
    assert _maps(xai, shared_ids, tmp_path / "again", *shlex.split(command)[3:])[0] == expected


def test_a_list_says_of_which_mode_and_data_set_its_samples_are(xai, shared_ids: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("mode,ds_id,sample_id\neval,svhn,1\ntrain,cifar,2\n")
    asked = ("--ids", f"@{tmp_path / 'list.csv'}")
    assert sorted(_maps(xai, shared_ids, tmp_path, *asked)[0]) == [("eval", "svhn", 1), ("train", "cifar", 2)]
    told, answer = _maps(xai, shared_ids, tmp_path, *asked, "--mode", "!train,!infer")
    assert told == [("eval", "svhn", 1)]
    assert any("left out: by mode and ds_id of their list 1 of train cifar" in said for said in answer["warnings"])
    for command in (
        ["saliency", shared_ids, "--model", "ckpt.pt"],
        ["samples", shared_ids, "--max", "0", "--min", "0"],
    ):
        status, _, err = xai(*command, *asked, "--ds-id", "cifar", "--mode", "eval")
        assert (status, "the listed samples are not of eval cifar: by mode and ds_id of their list" in err) == (1, True)
    np.savez(tmp_path / "own.npz", x=np.ones((3, 3, 4, 4), np.float32), sample_id=[0, 1, 2])
    question = ["saliency", shared_ids, "--model", "ckpt.pt", "--methods", "gradient", "--json", "-o", tmp_path]
    status, out, err = xai(*question, "--format", "csv", *asked, "--data", tmp_path / "own.npz")
    assert status == 0, err
    assert "mode and ds_id of the listed ids were not used: the data says neither" in json.loads(out)["warnings"]


def test_modes_and_data_sets_are_listed_as_for_other_commands(
    xai, shared_ids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [(*place, n) for place in COLOURS for n in range(3)]
    assert sorted(_maps(xai, shared_ids, tmp_path, "--mode", "all")[0]) == sorted(every)
    of_eval = sorted(sample for sample in every if sample[0] == "eval")
    assert sorted(_maps(xai, shared_ids, tmp_path, "--mode", "!train")[0]) == of_eval
    monkeypatch.setenv("XAI_DS_ID", "!svhn")
    assert {sample[1] for sample in _maps(xai, shared_ids, tmp_path, "--mode", "train,eval")[0]} == {"cifar"}
    # A pick goes by the same words.
    best, answer = _maps(xai, shared_ids, tmp_path, "--mode", "!train", "--pick", "best", "--samples", "2")
    assert best == [("eval", "cifar", 2), ("eval", "cifar", 1)]
    assert any("samples of mode eval of data set cifar whose inputs" in said for said in answer["warnings"])


def test_places_of_which_nothing_is_shown_are_told(xai, shared_ids: Path, tmp_path: Path) -> None:
    told, answer = _maps(xai, shared_ids, tmp_path, "--samples", "3")
    left = sorted({" ".join(place) for place in COLOURS} - {" ".join(key[:2]) for key in told})
    said = f"inputs of 6 samples of {left[0]} and {left[1]} are kept, too, of which none is shown"
    assert [said in warning for warning in answer["warnings"]].count(True) == 1
    status, _, err = xai("saliency", shared_ids, "--model", "ckpt.pt", "--mode", "train", "--ds-id", "svhn")
    assert status == 1
    assert "holds no kept inputs of mode train of ds-id svhn" in err
    assert "eval svhn" in err


def test_the_same_input_of_two_places_is_kept_apart(xai, tmp_path: Path) -> None:
    """Of one id, label and input all but the place is the same: also what the cache holds, and how a map moved."""
    with Run(tmp_path / "run") as run:
        for mode in ("train", "eval"):
            run.state.mode = mode
            run.log_inputs([7], np.ones((1, 3), np.float32), label=[0])
        for name in ("a.pt", "b.pt"):
            run.save_checkpoint(torch.nn.Linear(3, 2), name, example_inputs=torch.zeros(2, 3))
    question = ["saliency", tmp_path / "run", "--model", "a.pt", "--model", "b.pt", "--methods", "gradient", "--json"]
    for _ in range(2):
        status, out, err = xai(*question, "-o", tmp_path, "--format", "html")
        assert status == 0, err
        answer = json.loads(out)
        assert sorted(row["mode"] for row in answer["rows"]) == ["eval", "eval", "train", "train"]
        assert [change["mode"] for change in answer["changes"]] == [row["mode"] for row in answer["rows"][::2]]


def test_data_that_says_no_data_set_is_picked_with_a_word(xai, shared_ids: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=np.ones((3, 3, 4, 4), np.float32), sample_id=[0, 1, 2])
    question = ["saliency", shared_ids, "--model", "ckpt.pt", "--methods", "gradient", "--json", "-o", tmp_path]
    asked = [*question, "--data", tmp_path / "own.npz", "--pick", "best", "--samples", "2", "--format", "html"]
    found = []
    for more in ((), ("--ds-id", "svhn")):
        status, out, err = xai(*asked, *more)
        assert status == 0, err
        answer = json.loads(out)
        assert not {"mode", "ds_id"} & set(answer["rows"][0])
        unsure = "the data says no mode and data set, and 2 of the 2 picked have a loss in several"
        found.append(([row["sample_id"] for row in answer["rows"]], any(unsure in said for said in answer["warnings"])))
    assert found == [([2, 1], True), ([0, 1], False)]
    status, out, _ = xai(*question, "--data", tmp_path / "own.npz", "--ds-id", "svhn", "--format", "html")
    assert (status, any(said.startswith("--ds-id was not used") for said in json.loads(out)["warnings"])) == (0, True)


def test_links_lead_to_the_sample_of_the_same_place(xai, shared_ids: Path, tmp_path: Path) -> None:
    _maps(xai, shared_ids, tmp_path, "--ids", "1", "--ds-id", "svhn")
    for name, asked in (("samples", ["samples"]), ("track-report", ["track-report"])):
        question = [*asked, shared_ids, "--ids", "1", "--max", "0", "--min", "0", "--mode", "all", "-o", tmp_path]
        assert xai(*question, "--format", "html")[0] == 0
        page = (tmp_path / f"{name}.html").read_text()
        assert re.findall(r'<a href="(saliency[^"]*)"', page) == ["saliency.html#s=1&amp;at=eval%2Fsvhn"]
    page = (tmp_path / "saliency.html").read_text()
    assert re.findall(r'<a href="(track[^"]*)"', page) == ["track-report.html#s=1&amp;at=eval%2Fsvhn"]
    assert re.findall(r'data-s="1" data-at="([^"]*)"', page) == ["eval/svhn"]


def test_what_is_shown_of_kept_inputs_is_of_their_place(shared_ids: Path, tmp_path: Path) -> None:
    reader = open_run(shared_ids).reader()
    pictures, _ = thumbnails(reader, [0, 1, 2])
    assert pictures.keys() == {(*place, n) for place in COLOURS for n in range(3)}
    for (mode, ds_id, _), picture in pictures.items():
        pixels = np.frombuffer(picture.pixels, np.uint8).reshape(-1, 3).mean(axis=0)
        assert int(pixels.argmax()) == list(COLOURS).index((mode, ds_id))
    light = {"train": 0.9, "eval": 0.1}
    with Run(tmp_path / "run") as run:
        for mode, value in light.items():
            for ids, x in run.steps([(np.arange(4), np.full((4, 3, 4, 4), value, np.float32))], mode=mode):
                run.log_inputs(ids, x)
                run.log_samples(sample_id=ids, loss=[1.0] * 4, epoch=1, step=1)
    reader = open_run(tmp_path / "run").reader()
    inputs, _ = kept_inputs(reader)
    assert {(mode, n): x for mode, _, n, x in inputs.iter_rows()} == {
        (mode, n): pytest.approx(value, abs=0.01) for mode, value in light.items() for n in range(4)
    }


def test_one_table_is_not_collected_of_samples_with_one_id(xai, shared_ids: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shared_ids, run)
    question = ["collect", run, "--model", "ckpt.pt", "--label-names", "ant,bee,cow", "--json", "-o", tmp_path]
    status, _, err = xai(*question)
    assert status == 2
    assert "inputs of sample 0 are kept of " in err
    assert "--mode and --ds-id choose those of one" in err
    status, out, err = xai(*question, "--ds-id", "svhn")
    assert status == 0, err
    assert json.loads(out)["counts"]["rows"] >= 3
    table = pq.read_table(next((run / "tables").rglob("*.parquet")))
    assert set(table["label"].to_pylist()) == {2}
    np.savez(tmp_path / "own.npz", x=np.ones((3, 3, 4, 4), np.float32), sample_id=[0, 1, 2])
    status, _, err = xai(*question, "--ds-id", "svhn", "--data", tmp_path / "own.npz")
    assert (status, "--ds-id: it chooses among inputs kept in a run" in err) == (2, True)
