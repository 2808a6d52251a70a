"""What a loop does otherwise than it means to, or a run is gone on with otherwise than it was recorded: told, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.recorder.recorded import column, rows
from xaicli import parquet
from xaicli.answer import Answer
from xaicli.errors import UsageError
from xaicli.layout import RunLayout
from xaicli.queries.runs import info
from xaicli.reader import open_reader
from xaicli.recorder import media, segments
from xaicli.recorder.config import plain_config
from xaicli.recorder.run import Run
from xaicli.report.info import info_report


def said_by(*calls: Any) -> list[str]:
    """What is warned of while these are called."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for call in calls:
            call()
    return [str(one.message) for one in said]


def told_by_info(run_dir: Path) -> Answer:
    return info(open_reader(RunLayout(run_dir)))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_loop_that_names_no_epochs_is_told_so_once(tmp_path: Path, kind: Any) -> None:
    with Run(tmp_path / "run", strict=True) as run:

        def walk(*order: int) -> None:
            for i in order:
                ids = kind([2 * i, 2 * i + 1])
                run.log_samples(sample_id=ids, loss=[0.5, 1.5])

        first = said_by(lambda: walk(0, 1, 2))
        again = said_by(lambda: walk(2, 0, 1), lambda: walk(0, 1, 2))
    assert first == []
    assert len(again) == 1
    assert "sample 0 comes again in train, and the loop names no epochs" in again[0]
    assert "for epoch in run.epochs(n)" in again[0]


def test_loops_that_name_epochs_or_passes_are_told_nothing(tmp_path: Path) -> None:
    def named(run: Run) -> None:
        for epoch in range(3):
            run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], epoch=epoch)

    def counted(run: Run) -> None:
        for _ in run.epochs(3):
            for ids in run.steps([[1, 2]]):
                run.log_samples(sample_id=ids, loss=[0.5, 1.5])
            run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval")

    def passes(run: Run) -> None:
        for _ in range(3):
            run.begin_pass("eval")
            run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval")

    for loop in (named, counted, passes):
        with Run(tmp_path / loop.__name__, strict=True) as run:
            assert said_by(lambda run=run, loop=loop: loop(run)) == []


def test_a_run_gone_on_with_otherwise_is_told(tmp_path: Path) -> None:
    def start(**options: Any) -> None:
        with Run(tmp_path / "run", **options) as run:
            run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[0.5, 1.5], epoch=1, step=1)

    assert said_by(lambda: start(task="classification", ignore_label=255)) == []
    assert said_by(lambda: start(ignore_label=255)) == []
    assert any("ignore_label=-100 from now on" in one for one in said_by(lambda: start(task="classification")))
    told = said_by(lambda: start(task="binary"))
    assert any(
        "task='binary' from now on; what this run recorded before was of a classification task" in t for t in told
    )
    assert told_by_info(tmp_path / "run").selection["task"] == "binary"
    told = said_by(lambda: start(task="multilabel"))
    assert any("task='multilabel' is not that of this run" in one and "stays so" in one for one in told)
    assert told_by_info(tmp_path / "run").selection["task"] == "binary"
    assert "The task is binary." in info_report(told_by_info(tmp_path / "run")).sentence


def test_epochs_that_are_not_recorded_are_told_by_info(tmp_path: Path) -> None:
    with Run(tmp_path / "run", epoch_frequency=3) as run:
        for epoch in range(1, 7):
            run.log_samples(sample_id=[1], loss=[0.5], epoch=epoch, step=epoch)
    assert sorted(set(column(tmp_path / "run", "epoch"))) == [3, 6]
    assert any("epochs that 3 divides only" in warning for warning in told_by_info(tmp_path / "run").warnings)


def test_a_fact_that_changes_its_kind_is_told_once(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        assert said_by(lambda: run.log_facts([1, 2], weight=[1, 2], camera=["a", "b"])) == []
        told = said_by(lambda: run.log_facts([3], weight="heavy"), lambda: run.log_facts([4], weight="light"))
        assert said_by(lambda: run.log_facts([5], weight=3, camera="c")) == []
    said = ["xai: fact weight was whole numbers and is now text: all its values are read as text"]
    assert told == said
    with Run(tmp_path / "again") as run:
        run.log_facts([1], weight=2, camera="a")
    with Run(tmp_path / "again") as run:
        assert said_by(lambda: run.log_facts([1], weight="heavy", camera="b", new=3)) == said


def test_settings_that_differ_from_those_of_before_are_told(tmp_path: Path) -> None:
    def start(*, ids: Any = (1, 2), **options: Any) -> None:
        with Run(tmp_path / "run", **options) as run:
            run.log_samples(sample_id=list(ids), label=[0, 1], logits=[[1.0, 2.0]] * 2, epoch=1, step=1, mode="eval")

    first = {"config": {"lr": 0.1, "net": {"depth": 3}, "token": "a"}, "keep_probs": [1, 3], "ignore_label": None}
    assert said_by(lambda: start(**first)) == []
    assert said_by(lambda: start(**first)) == []
    assert said_by(lambda: start(**first | {"config": {"new": 1}})) == []
    told = said_by(lambda: start(config={"lr": 0.2, "net": {"depth": 4}, "token": "b"}, keep_probs=True))
    assert [one.split(": ", 2)[2] for one in told] == [
        "ignore_label=-100 from now on; what this run recorded before was with None",
        "keep_probs=True from now on; what this run recorded before was with [1, 3]",
        "the configuration differs from that of before, which it replaces: lr 0.1 -> 0.2, "
        "net {'depth': 3} -> {'depth': 4}",
    ]


def test_walks_of_a_loop_that_names_no_epochs_are_told_once(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:

        def walk(**place: Any) -> None:
            for ids in run.steps([[1, 2], [3, 4]]):
                run.log_samples(sample_id=ids, loss=[0.5, 1.5], **place)

        assert said_by(lambda: walk(epoch=1), lambda: walk(epoch=2)) == []  # the caller names them
        told = said_by(walk, walk)
    assert len(told) == 1
    assert "run.steps goes through train again" in told[0]
    assert "for epoch in run.epochs(n)" in told[0]


@pytest.mark.parametrize(("ids", "kept"), [(["007", "08", "x"], ["007", "08", "x"]), ([7, 8], [7, 8])])
def test_a_file_of_facts_is_read_by_the_runs_kind_of_ids(tmp_path: Path, ids: list[Any], kept: list[Any]) -> None:
    given = "sample_id,zip,n\n007,01234,1\n08,98765,2\nx,00000,3\n"
    (tmp_path / "facts.csv").write_text(given)
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=ids, loss=[0.5] * len(ids), epoch=1, step=1)
        told = said_by(lambda: run.log_facts(facts=str(tmp_path / "facts.csv")))
    assert len(told) == (0 if "x" in ids else 1)
    facts = pq.read_table(tmp_path / "run" / "facts").to_pydict()
    assert facts == {"sample_id": kept, "zip": ["01234", "98765", "00000"][: len(kept)], "n": [1, 2, 3][: len(kept)]}


def test_a_pass_that_is_named_and_those_that_follow(tmp_path: Path) -> None:
    """`begin_pass` and `steps` begin the pass after the last that was named; rows without a word are of the last."""
    with Run(tmp_path / "run", strict=True) as run:
        run.state.epoch_idx = 1
        log = lambda value, **place: run.log_samples(sample_id=[1], loss=[value], mode="eval", **place)  # noqa: E731
        log(0.0)
        log(3.0, eval_pass=3)
        log(3.5)
        assert run.begin_pass("eval") == 4
        log(4.0)
        log(2.0, eval_pass=2)
        log(4.5)
        for _ in run.steps([0], mode="eval"):
            run.log_samples(sample_id=[1], loss=[5.0])
        run.state.epoch_idx = 2
        assert run.begin_pass("eval") == 0
    table = rows(tmp_path / "run")
    found = sorted(zip(table["pass"].to_pylist(), table["loss"].to_pylist(), strict=True))
    assert found == [(0, 0.0), (2, 2.0), (3, 3.0), (3, 3.5), (4, 4.0), (4, 4.5), (5, 5.0)]


@pytest.mark.usefixtures("usual_segments")
def test_a_writer_that_stands_still_holds_one_step_and_what_is_dropped_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 100_000)
    go, stands_still, whole = threading.Event(), threading.Event(), parquet.write
    wait_for = threading.Condition.wait_for

    def waited(condition: threading.Condition, predicate: Any, timeout: float | None = None) -> bool:
        """As long as the step would wait, by no clock: until there is a segment, or will be none."""
        if timeout != segments.LONGEST_WAIT:
            return wait_for(condition, predicate, timeout)
        while not predicate() and not stands_still.is_set():
            condition.wait(0.01)
        if not predicate():
            waits.append(timeout)
        return bool(predicate())

    def write(*given: Any, **named: Any) -> Any:
        stands_still.set()
        go.wait(240)
        return whole(*given, **named)

    monkeypatch.setattr(threading.Condition, "wait_for", waited)
    monkeypatch.setattr(parquet, "write", write)
    run = Run(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(100):
            run.log_samples(sample_id=np.arange(500) + 500 * step, loss=np.ones(500), epoch=1, step=step)
    dropped = run.stats()["rows_dropped"]
    assert segments.LONGEST_WAIT * len(waits) <= 1
    assert 0 < dropped < 50_000
    go.set()
    run.close()
    assert rows(tmp_path / "run").num_rows == 50_000 - dropped
    assert told_by_info(tmp_path / "run").counts.dropped == dropped


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_run_directory_is_any_kind_of_path(tmp_path: Path, kind: Any) -> None:
    with Run(kind(str(tmp_path / "run"))) as run:
        run.log_samples(sample_id=[1], loss=[0.5], epoch=1)
    assert column(tmp_path / "run", "loss") == [0.5]


@pytest.mark.parametrize("given", [None, 3, ["runs"]])
def test_what_is_no_path_is_refused_by_name(given: Any) -> None:
    with pytest.raises(UsageError, match="is no path"):
        Run(given)


def test_secrets_are_told_by_the_words_of_a_name() -> None:
    secret = ["api_key", "wandb_api_key", "HF_TOKEN", "auth_token", "password", "client_secret", "apiKey", "APIKey",
              "apikey", "s3.access-key", "hfToken", "passwords", "DB_PASSWORD", "authToken2", "secretKey"]  # fmt: skip
    plain = ["monkey", "tokenizer", "keyboard", "n_tokenizers", "turkey", "tokenization", "secretary", "hotkeys_",
             "lr", "monkeys", "author", "pad_token", "eos_token", "additional_special_tokens", "token_type",
             "primary_key", "sortKey", "cache-key"]  # fmt: skip
    config = plain_config(dict.fromkeys([*secret, *plain], "hush"))
    assert {name for name, value in config.items() if value != "hush"} == set(secret)
    numbers = {"n_tokens": 5, "max_tokens": 100, "token": 7, "use_auth_token": True, "key": None, "tokens": [1, 2]}
    assert plain_config(numbers) == numbers
    inside = plain_config({"secrets": {"a": "hush", "n": 3, "more": ["hush"]}, "api_keys": ["hush"]})
    assert inside == {"secrets": {"a": "***", "n": 3, "more": "***"}, "api_keys": "***"}


_COUNTED_AND_KILLED = """
import os, signal, sys, warnings
import numpy as np
from xaicli.recorder.run import Run
from xaicli.report.info import info_report
warnings.simplefilter("ignore")
run = Run(sys.argv[1], ignore_label=255)
labels = np.array([0, 255, 1, 255], np.int64)
for step in range(3):
    run.log_samples(sample_id=np.arange(4) + 4 * step, label=labels, epoch=1, step=step)
run.log_samples(sample_id=[12, 13], label=[255, 1], epoch=1, step=4)
for step in (5, 6):
    run.log_samples(sample_id=[14 + 2 * step, 15 + 2 * step], label=[0, 1], loss=["low", 1.0], epoch=1, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_refused_and_ignored_is_counted_after_a_kill_too(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", _COUNTED_AND_KILLED, run_dir], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    for _ in range(2):
        reader = open_reader(RunLayout(run_dir))
        assert any("2 values of loss were not recorded" in loss for loss in reader.losses)
        assert reader.counts().ignored == 7
        assert told_by_info(run_dir).counts.ignored == 7
        Run(run_dir, ignore_label=255).close()  # which stores what was left
    assert sum(label is None for label in column(run_dir, "label")) == 7
    assert not RunLayout(run_dir).wal.exists()


def test_probabilities_that_a_task_does_not_keep_are_told_once(tmp_path):
    def record(**words):
        with Run(tmp_path / str(len(words)), task="multilabel", **words) as run:
            for step in (1, 2):
                run.log_samples(
                    sample_id=[1, 2], label=[[0], [1, 2]], logits=np.ones((2, 3)), mode="eval", epoch=1, step=step
                )

    told = said_by(lambda: record(keep_probs=True))
    assert sum("those of a multilabel task are not kept" in one for one in told) == 1
    assert not any("keep_probs" in one for one in said_by(record))


def test_what_is_kept_otherwise_than_given_is_not_told_as_lost(tmp_path: Path) -> None:
    """A rounded scalar and metric, a picture with a hole, beside values that were lost indeed."""
    run_dir = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Run(run_dir) as run:
            run.log({"seen": 2**53 + 1, "step": 1})
            run.log({"seen": "many", "step": 2})
            run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], tokens=[2**53 + 1, 3], epoch=1)
            run.log_samples(sample_id=[3, 4], loss=["low", 2.0], epoch=1)
            run.log_images([1, 2], [np.array([[0.0, np.nan]]), np.full((1, 2), np.nan)])
    stored = dict(zip(column(run_dir, "sample_id"), column(run_dir, "tokens"), strict=True))
    assert stored == {1: 2.0**53, 2: 3.0, 3: None, 4: None}
    assert sorted(open_reader(RunLayout(run_dir)).losses) == [
        "1 picture was not recorded: images has a picture without a finite value",
        "1 picture was recorded, but pictures have values that are NaN or infinite, which are shown as black",
        "1 value of loss was not recorded: loss is not numeric: it holds text",
        "1 value of seen was not recorded: seen is not numeric: it holds text",
        "1 value of seen was recorded, but seen 9007199254740993 is beyond 2^53: it is rounded to double precision",
        "1 value of tokens was recorded, but tokens has whole numbers beyond 2^53: they are rounded to double "
        "precision",
    ]


_OUTSIDE = """
import os, signal, sys, warnings
import numpy as np
from xaicli.recorder.run import Run
warnings.simplefilter("ignore")
run = Run(sys.argv[1], label_names=["a", "b", "c"], ignore_label=255)
for step in range(4):
    labels = np.array([-1, 0, 2, 7, 255], np.int64)
    run.log_samples(sample_id=np.arange(5), label=labels, loss=np.ones(5), epoch=1, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""
_NAMELESS = "label -1 is none of the 3 label_names: it is kept, as a class without a name"


@pytest.mark.parametrize(
    ("kind", "labels", "n"),
    [
        ("classification", [-1, 0, 7, None], 2),
        ("classification", ["a", "x", None, "c"], 1),
        ("multilabel", [[0, 9], [1], [], [5]], 2),
    ],
)
def test_labels_without_a_name_are_kept_told_of_and_counted(
    tmp_path: Path, kind: str, labels: list[Any], n: int
) -> None:
    run = Run(tmp_path / "run", label_names=["a", "b", "c"], task=kind)
    run.log_samples(sample_id=[0, 1, 2, 3], label=labels, epoch=1)
    with pytest.warns(UserWarning, match="is none of the 3 label_names: it is kept"):
        run.close()
    assert column(tmp_path / "run", "label") == labels
    (line,) = open_reader(RunLayout(tmp_path / "run")).losses
    assert line.startswith(f"{n} values of label were recorded, but" if n > 1 else "1 value of label was recorded, but")


def test_labels_without_a_name_are_counted_after_a_kill_too(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", _OUTSIDE, run_dir], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    Run(run_dir).close()
    assert open_reader(RunLayout(run_dir)).losses == (f"8 values of label were recorded, but {_NAMELESS}",)
    assert [*map(str, rows(run_dir)["label"].to_pylist())] == ["-1", "0", "2", "7", "None"] * 4


def test_samples_are_counted_of_ids_in_whatever_holds_them() -> None:
    assert [media.count(one) for one in (7, "img-7", np.array(7), torch.tensor(7))] == [1, 1, 1, 1]
    assert [media.count(some) for some in ([1, 2], np.arange(3), torch.arange(4), ["a"])] == [2, 3, 4, 1]
    assert media.count(iter([1, 2, 3]), "text", [0.1, 0.2, 0.3]) == 3
