"""One odd value costs its neighbours nothing, is counted, and is told of."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recorder.recorded import column, rows
from xaicli import open_run, parquet
from xaicli.layout import RunLayout
from xaicli.reader import open_reader
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run

HERE: dict[str, Any] = {"mode": "train", "epoch": 1}


def told(run_dir: Path, log: Callable[[Run], None], **settings: Any) -> dict[str, Any]:
    """The counters of a run that something was logged to."""
    run = Run(run_dir, **settings)
    with pytest.warns(RecorderWarning):
        log(run)
    run.close()
    return run.stats()


def stored(run_dir: Path, folder: str) -> list[dict[str, Any]]:
    return [row for file in sorted((run_dir / folder).glob("*.parquet")) for row in parquet.read(file).to_pylist()]


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([5, None, 7], [5, 7]),
        ([5, 2**63, 7], [5, 7]),
        (np.array([5, 2**63, 7], np.uint64), [5, 7]),
        ([5, "a", 7], [5, 7]),
        ([5, 1.5, 7], [5, 7]),
        (["a", "\ud800", "c"], ["a", "c"]),
        (["a", b"\xff", "c"], ["a", "c"]),
        (np.ma.masked_array([5, 6, 7], [False, True, False]), [5, 7]),
    ],
)
def test_an_id_that_is_none_costs_its_own_row(tmp_path: Path, ids: Any, kept: list[Any]) -> None:
    stats = told(tmp_path / "run", lambda run: run.log_samples(sample_id=ids, loss=[0.0, 1.0, 2.0], step=1, **HERE))
    assert (column(tmp_path / "run", "sample_id"), column(tmp_path / "run", "loss")) == (kept, [0.0, 2.0])
    assert (stats["rows_logged"], stats["rows_stored"], stats["rows_dropped"]) == (3, 2, 1)


def test_among_mixed_ids_the_runs_kind_counts(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=["x"], loss=[0.0], step=1, **HERE)
        with pytest.warns(RecorderWarning, match="mixes whole numbers and texts"):
            run.log_samples(sample_id=[1, "y"], loss=[1.0, 2.0], step=2, **HERE)
    assert column(tmp_path / "run", "sample_id") == ["x", "y"]


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (np.array([0, "x", 2], object), [0, None, 2]),
        ([0, "x", 2], [0, None, 2]),
        ([0, object(), 2], [0, None, 2]),
        ([0, b"\xff", 2], [0, None, 2]),
        ([0, 0.5, 2], [0, None, 2]),
        (np.array([0, 0.5, 2]), [0, None, 2]),
        (np.ma.masked_array([0, 1, 2], [False, True, False]), [0, None, 2]),
    ],
)
def test_a_label_of_another_kind_is_missing_alone(tmp_path: Path, labels: Any, kept: list[Any]) -> None:
    run = Run(tmp_path / "run", task="classification")
    run.log_samples(sample_id=[0], label=[1], loss=[0.5], step=0, **HERE)
    if isinstance(labels, np.ma.MaskedArray):
        run.log_samples(sample_id=[1, 2, 3], label=labels, loss=[0.0, 1.0, 2.0], step=1, **HERE)
    else:
        with pytest.warns(RecorderWarning, match="label"):
            run.log_samples(sample_id=[1, 2, 3], label=labels, loss=[0.0, 1.0, 2.0], step=1, **HERE)
        assert sum(run.stats()["refused"]["label"].values()) == kept.count(None)
    run.close()
    assert column(tmp_path / "run", "label")[1:] == kept
    assert column(tmp_path / "run", "loss") == [0.5, 0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("labels", "kept", "refused"),
    [
        ([np.int8(0), torch.tensor(1), None, 2.0], [0, 1, None, 2], 0),
        ([None, np.int8(1), torch.tensor(1), 2], [None, 1, 1, 2], 0),
        ([float("nan"), "a", np.str_("b"), None], [None, "a", "b", None], 0),
        ([None, 1, object(), "x"], [None, 1, None, None], 2),
        ([None, "a", object(), 1], [None, "a", None, None], 2),
    ],
)
@pytest.mark.parametrize("name", ["label", "prediction"])
def test_a_missing_label_is_of_either_kind_and_no_refusal(
    tmp_path: Path, name: str, labels: list[Any], kept: list[Any], refused: int
) -> None:
    given: dict[str, Any] = {name: labels}
    run = Run(tmp_path / "run", task="classification", strict=not refused)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if refused else "error")
        run.log_samples(sample_id=[0, 1, 2, 3], loss=[0.0, 1.0, 2.0, 3.0], step=1, **given, **HERE)
    run.close()
    stats = run.stats()
    assert column(tmp_path / "run", name) == kept
    assert column(tmp_path / "run", "loss") == [0.0, 1.0, 2.0, 3.0]
    assert sum(stats["refused"].get(name, {}).values()) == refused


def test_a_text_among_numbers_is_missing_alone(tmp_path: Path) -> None:
    stats = told(
        tmp_path / "run",
        lambda run: run.log_samples(sample_id=[1, 2, 3], m=[1.0, "x", 3], loss=[0.0, 1.0, 2.0], step=1, **HERE),
    )
    assert column(tmp_path / "run", "m") == [1.0, None, 3.0]
    assert stats["refused"] == {"m": {"m is not numeric: it holds text": 1}}


def test_what_lies_under_a_mask_is_no_value_in_the_fast_way_either(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(3):
            run.log_samples(sample_id=np.array([1, 2]), loss=np.array([0.5, 1.5]), step=step, **HERE)
        masked = np.ma.masked_array([0.5, 99.0], [False, True])
        run.log_samples(sample_id=np.array([1, 2]), loss=masked, step=3, **HERE)
    by_id = column(tmp_path / "run", "loss")
    assert by_id[:7] == [0.5] * 4 + [1.5] * 3
    assert by_id[7:] == [None]


@pytest.mark.parametrize("name", ["label", "prediction", "logits", "probs", "m"])
def test_a_tensor_without_data_costs_its_column_alone(tmp_path: Path, name: str) -> None:
    shape = (2, 3) if name in ("logits", "probs") else (2,)
    kind = torch.long if name in ("label", "prediction") else torch.float32
    bad: dict[str, Any] = {name: torch.empty(shape, dtype=kind, device="meta")}
    stats = told(
        tmp_path / "run", lambda run: run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], step=1, **HERE, **bad)
    )
    assert column(tmp_path / "run", "loss") == [1.0, 2.0]
    assert (stats["rows_dropped"], set(stats["refused"])) == (0, {name})


def test_a_metric_that_is_none_is_not_given(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], logits=torch.zeros(2, 2), loss=None, other=None, step=1, **HERE)
    assert column(tmp_path / "run", "loss") == pytest.approx([math.log(2)] * 2)
    assert not [w for w in recwarn if issubclass(w.category, RecorderWarning)]


@pytest.mark.parametrize(
    ("values", "kept", "refused"),
    [
        ([1.0, 0.0, 0.5], [True, False, None], 1),
        ([2, 0, 1], [None, False, True], 1),
        ([1, -1, float("nan")], [True, None, None], 1),
    ],
)
def test_correct_is_0_or_1(tmp_path: Path, values: list[Any], kept: list[Any], refused: int) -> None:
    def log(run: Run) -> None:
        for step in range(2):  # the second time by the way of what was seen before
            run.log_samples(sample_id=np.arange(3), correct=np.array(values), step=step, **HERE)

    stats = told(tmp_path / "run", log)
    assert column(tmp_path / "run", "correct") == [value for value in kept for _ in range(2)]
    assert stats["refused"] == {"correct": {"correct must be 0 or 1": 2 * refused}}


def test_a_step_or_pass_that_is_none_is_the_runs_own(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        run.state.global_step = 7
        run.log_samples(sample_id=[1], loss=[1.0], step="x", **HERE)  # type: ignore[arg-type]
        run.log_samples(sample_id=[2], loss=[1.0], step=[3], **HERE)  # type: ignore[arg-type]
        run.log_samples(sample_id=[3], loss=[1.0], step=8.0, eval_pass=-1, **HERE)  # type: ignore[arg-type]
        run.log_samples(sample_id=[4], loss=[1.0], step=9, mode="train", epoch=1.5)  # type: ignore[arg-type]

    stats = told(tmp_path / "run", log)
    assert [(r["sample_id"], r["step"], r["pass"]) for r in rows(tmp_path / "run").to_pylist()] == [
        (1, 7, 0),
        (2, 7, 0),
        (3, 8, 0),
    ]
    assert stats["refused"] == {
        "step": {"step 'x' is no whole number": 1, "step [3] is no whole number": 1},
        "eval_pass": {"eval_pass -1 is not a number from 0 to 32767": 1},
    }
    assert stats["reasons"] == {"epoch 1.5 is no whole number": 1}


def test_a_time_that_is_none_leaves_its_scalars(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        run.log({"epoch": 2**31, "a": 1.0})
        run.log({"epoch": 0.5, "a": 2.0})
        run.log({"step": "x", "epoch": 3, "a": 3.0})
        run.log({"step": 10, "epoch": 2.75, "a": 4.0})  # as Transformers' own logs say it
        run.log({"epoch": None, "a": 5.0})
        run.log({"a": None, "b": 6.0})
        run.log(None)  # type: ignore[arg-type]

    stats = told(tmp_path / "run", log)
    assert [(r["key"], r["value"], r["axis"], r["step"], r["epoch"]) for r in stored(tmp_path / "run", "scalars")] == [
        ("a", 1.0, "counter", 0, None),
        ("a", 2.0, "counter", 1, None),
        ("a", 3.0, "epoch", 3, 3),
        ("a", 4.0, "step", 10, 2),
        ("a", 5.0, "counter", 4, None),
        ("b", 6.0, "counter", 5, None),
    ]
    assert set(stats["refused"]) == {"epoch", "step", "a", "scalars"}


def test_a_mode_that_is_none_leaves_its_scalars(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        run.state.mode = "train"
        run.log({"a": 1.0}, mode="validation")
        run.log({"a": 2.0}, mode=["eval"])  # type: ignore[arg-type]
        run.log({"a": 3.0}, mode="eval", ds_id=4)  # type: ignore[arg-type]

    stats = told(tmp_path / "run", log)
    found = [(row["value"], row["mode"], row["ds_id"]) for row in stored(tmp_path / "run", "scalars")]
    assert found == [(1.0, "train", ""), (2.0, "train", ""), (3.0, "eval", "")]
    kept, modes = "the scalars are kept without it", "none of train, eval, test, infer"
    assert stats["refused"] == stats["altered"] == {
        "mode": {f"mode 'validation' is {modes}: {kept}": 1, f"mode ['eval'] is {modes}: {kept}": 1},
        "ds_id": {f"ds_id must be a text, not int: {kept}": 1},
    }  # fmt: skip
    with Run(tmp_path / "strict", strict=True) as run, pytest.raises(ValueError, match="mode 'validation' is none of"):
        run.log({"a": 1.0}, mode="validation")


def test_a_picture_that_is_none_costs_itself(tmp_path: Path) -> None:
    good = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    stats = told(
        tmp_path / "run",
        lambda run: run.log_images([1, 2, 3, None, 5], [good, None, "x", good, torch.empty(3, 4, 4, device="meta")]),
    )
    assert [(r["sample_id"], r["pixels"]) for r in stored(tmp_path / "run", "media")] == [(1, good.tobytes())]
    assert (stats["records_dropped"], sum(stats["refused"]["media"].values())) == (4, 4)


@pytest.mark.parametrize(
    ("label", "second"),
    [("s", None), ([0.5, 1], None), ([2**40, 1], 1), (["a", 1], None), ([1], None), (object(), None)],
)
def test_a_bad_label_leaves_the_inputs(tmp_path: Path, label: Any, second: int | None) -> None:
    stats = told(tmp_path / "run", lambda run: run.log_inputs([1, 2], np.eye(2, dtype=np.float32), label=label))
    got = stored(tmp_path / "run", "inputs")
    assert [(r["sample_id"], r["label"], list(np.frombuffer(r["data"], np.float32))) for r in got] == [
        (1, "a" if label == ["a", 1] else None, [1.0, 0.0]),
        (2, second, [0.0, 1.0]),
    ]
    assert (stats["records_dropped"], set(stats["refused"])) == (0, {"label of inputs"})


def test_a_missing_label_of_an_input_is_missing_and_no_more(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_inputs([1, 2], np.eye(2), label=[3, None])
        run.log_inputs([4], np.ones((1, 2)), label=[None])
    assert [(r["sample_id"], r["label"]) for r in stored(tmp_path / "run", "inputs")] == [(1, 3), (2, None), (4, None)]


def test_an_input_without_an_id_costs_itself(tmp_path: Path) -> None:
    told(tmp_path / "run", lambda run: run.log_inputs([1, None, 3], np.eye(3), label=[0, 1, 2]))
    assert [(r["sample_id"], r["label"]) for r in stored(tmp_path / "run", "inputs")] == [(1, 0), (3, 2)]


def test_facts_of_several_kinds_are_texts(tmp_path: Path) -> None:
    stats = told(
        tmp_path / "run",
        lambda run: run.log_facts([1, 2, None, 4], camera=["left", 5, "right", "up"], size=[1, "t", 3, 2**70], ok=7),
    )
    assert stored(tmp_path / "run", "facts") == [
        {"sample_id": 1, "camera": "left", "size": "1", "ok": 7},
        {"sample_id": 2, "camera": "5", "size": "t", "ok": 7},
        {"sample_id": 4, "camera": "up", "size": None, "ok": 7},
    ]
    assert set(stats["refused"]) == {"facts", "size"}  # a row without an id, a number beyond 64 bits


def test_a_text_can_stand_for_no_label(tmp_path: Path) -> None:
    with Run(tmp_path / "run", ignore_label="unknown", strict=True) as run:
        run.log_samples(sample_id=[1, 2], label=["unknown", "b"], prediction=["b", "b"], step=1, **HERE)
    assert (column(tmp_path / "run", "label"), column(tmp_path / "run", "correct")) == ([None, "b"], [None, True])


def test_a_regressions_ignored_label_is_honoured_and_the_default_is_a_number(tmp_path: Path) -> None:
    for name, ignored in (("default", -100), ("said", -1)):
        with Run(tmp_path / name, task="regression", strict=True, ignore_label=ignored) as run:
            run.log_samples(sample_id=[1, 2], label=[-1.0, -100.0], prediction=[0.0, 0.0], step=1, **HERE)
    assert column(tmp_path / "default", "residual") == [-1.0, -100.0]
    assert column(tmp_path / "said", "residual") == [None, -100.0]


@pytest.mark.parametrize(
    "setting",
    [
        {"keep_probs": "x"},
        {"keep_probs": 2},
        {"epoch_frequency": "x"},
        {"epoch_frequency": 1.5},
        {"epoch_frequency": 0},
        {"ignore_label": [255]},
        {"ignore_label": 0.5},
    ],
)
def test_a_setting_without_a_meaning_is_refused_by_name(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Run(tmp_path / "run", **setting)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_one_hot_labels_say_what_they_are_taken_for(tmp_path: Path, dtype: torch.dtype) -> None:
    label = torch.eye(3).to(dtype)
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="taken for classification"):
        run.log_samples(sample_id=[1, 2, 3], label=label, logits=torch.zeros(3, 3), step=1, **HERE)
    with Run(tmp_path / "said", task="multilabel", strict=True) as run:
        run.log_samples(sample_id=[1, 2, 3], label=label, logits=torch.zeros(3, 3), step=1, **HERE)
    assert column(tmp_path / "run", "label") == [0, 1, 2]
    assert column(tmp_path / "said", "label") == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({"probs": [[0.9, 0.9, 0.1], [0.9, 0.9, 0.1]]}, [0]),  # probabilities of classes sum to one
        ({"probs": [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]]}, 0),
        ({"prediction": [[0, 1], [1]]}, [0]),
        ({"prediction": [0, 1]}, 0),
    ],
)
def test_what_stands_beside_one_hot_labels_says_their_task(tmp_path: Path, given: dict[str, Any], first: Any) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="taken for"):
        run.log_samples(sample_id=[1, 2], label=torch.eye(3)[:2].long(), step=1, **HERE, **given)
    assert column(tmp_path / "run", "label")[0] == first


def test_credentials_of_addresses_and_arguments_are_masked(tmp_path: Path) -> None:
    config = {
        "store": "https://me:hidden1@host/x",
        "argv": ["train.py", "--api-key", "hidden2", "--token=hidden3", "--lr", "0.1"],
        "pwd": "hidden4",
        "Authorization": "Bearer hidden5",
        "layers": [1, 2],
        "names": ["a", "b"],
    }
    Run(tmp_path / "run", config=config).close()
    text = (tmp_path / "run" / "xai.json").read_text()
    assert "hidden" not in text
    kept = json.loads(text)["config"]
    assert (kept["store"], kept["layers"], kept["names"]) == ("https://***@host/x", [1, 2], ["a", "b"])
    assert kept["argv"] == ["train.py", "--api-key", "***", "--token=***", "--lr", "0.1"]


def test_a_state_that_torch_cannot_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "[enforce fail at inline_container.cc:672] . unexpected pos 832 vs 726"

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError(words)

    run = Run(tmp_path / "run", name="n")
    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(RecorderWarning, match="unexpected pos"):
        assert run.state.save_state(objects={"t": torch.ones(2)}) is None
    run.close()


def test_no_value_is_null_and_a_nan_is_a_nan(tmp_path: Path) -> None:
    """Nothing that needs a label has a value without one, and only what is not finite is counted as that."""
    ids = [1, 2, 3]
    with Run(tmp_path / "classes") as run:
        run.log_samples(sample_id=ids, label=[0, -100, None], logits=np.eye(3), m=[1.0, None, math.nan], **HERE, step=1)
    with Run(tmp_path / "many") as run:  # which are derived before they are kept
        run.log_samples(sample_id=ids, label=[0, -100, None], logits=np.eye(3, 50), **HERE, step=1)
    with Run(tmp_path / "sequence", task="sequence") as run:
        label = np.array([[0, 1], [-100, -100], [-100, 2]])
        run.log_samples(sample_id=ids, label=label, logits=np.zeros((3, 2, 3)), **HERE, step=1)
    with Run(tmp_path / "sets", task="multilabel") as run:
        run.log_samples(sample_id=ids, label=[[0], None, [1, 2]], logits=np.eye(3), **HERE, step=1)
    with Run(tmp_path / "numbers", task="regression") as run:
        run.log_samples(sample_id=ids, label=[0.5, None, 2.5], prediction=[1.0, 2.0, math.nan], **HERE, step=1)
    for name in ("loss", "label_prob", "margin", "el2n"):
        for run_of in ("classes", "many"):
            values = column(tmp_path / run_of, name)
            assert values[0] is not None
            assert values[1:] == [None, None], (run_of, name)
    assert None not in column(tmp_path / "many", "entropy")
    one, two, three = column(tmp_path / "classes", "m")
    assert (one, two) == (1.0, None)
    assert isinstance(three, float)
    assert math.isnan(three)
    losses = column(tmp_path / "sequence", "loss")
    assert losses == [pytest.approx(math.log(3), abs=1e-6), None, pytest.approx(math.log(3), abs=1e-6)]
    assert column(tmp_path / "sequence", "n_tokens") == [2.0, 0.0, 1.0]
    for name in ("loss", "jaccard", "n_wrong"):
        assert [value is None for value in column(tmp_path / "sets", name)] == [False, True, False]
    for name in ("residual", "abs_error", "loss", "label"):
        assert column(tmp_path / "numbers", name)[1] is None
    last = column(tmp_path / "numbers", "residual")[2]
    assert isinstance(last, float)
    assert math.isnan(last)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (np.array([5.0, np.nan, 7.0]), [5, 7]),
        (np.array([5, 2**24 + 2, 7], np.float32), [5, 7]),  # which is also what 2^24 + 1 becomes
        (np.array([5, np.inf, -7], np.float16), [-7, 5]),
        ([5.0, 6.5, 7.0], [5, 7]),
        (torch.tensor([5.0, 6.25, 7.0]), [5, 7]),
    ],
)
def test_a_real_number_that_is_no_id_costs_its_own_row(tmp_path: Path, ids: Any, kept: list[Any]) -> None:
    stats = told(tmp_path / "run", lambda run: run.log_samples(sample_id=ids, loss=[0.0, 1.0, 2.0], step=1, **HERE))
    assert column(tmp_path / "run", "sample_id") == kept
    assert sorted(map(str, column(tmp_path / "run", "loss"))) == ["0.0", "2.0"]
    assert stats["rows_dropped"] == 1


def test_whole_ids_that_come_as_real_numbers_are_told_once(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=np.array([2.0**53, 1.0]), loss=[0.0, 1.0], step=1, **HERE)
        run.log_samples(sample_id=[2.0, 3.0], loss=[2.0, 3.0], step=2, **HERE)
        run.log_samples(sample_id=[4, 5], loss=[4.0, 5.0], step=3, **HERE)
    assert [str(one.message).partition(",")[0] for one in recwarn] == ["xai: sample_id comes as real numbers"]
    assert column(tmp_path / "run", "sample_id") == [1, 2, 3, 4, 5, 2**53]


@pytest.mark.parametrize(
    ("before", "is_flushed", "is_killed"),
    [(True, True, False), (True, False, False), (True, False, True), (False, False, True)],
)
def test_facts_have_the_ids_of_the_rows_whichever_come_first(
    tmp_path: Path, before: bool, is_flushed: bool, is_killed: bool
) -> None:
    """A number is a text's, and a text that is a number that; only a text that is none is no id of whole numbers."""
    for kind, rows_ids, fact_ids, expected in (
        ("texts", ["7", "8"], [7, 8], [("7", "a"), ("8", "b")]),
        ("numbers", [7, 8], ["7", "x8"], [(7, "a"), (8, None)]),
    ):
        run_dir = tmp_path / kind
        script = _FACTS.format(str(run_dir), rows_ids, fact_ids, before, is_flushed, is_killed)
        said = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=not is_killed
        )
        assert said.returncode == (-9 if is_killed else 0)
        for _ in range(2):  # as it was left, and once what was left is stored
            found = open_run(run_dir).scan(mode="all").sort("sample_id").select("sample_id", "camera").collect()
            assert found.rows() == expected
            Run(run_dir).close()
        if is_killed and before and not is_flushed:
            assert ("facts" in " ".join(open_reader(RunLayout(run_dir)).losses)) == (kind == "numbers")
        if not is_killed and not (before and is_flushed):
            assert ("kind" in said.stderr or "must be whole numbers" in said.stderr) == (kind == "numbers")


_FACTS = """
import os, signal
from xaicli.recorder.run import Run
run = Run({0!r})
rows = lambda: run.log_samples(sample_id={1!r}, loss=[1.0, 2.0], epoch=1, step=1)
facts = lambda: run.log_facts({2!r}, camera=["a", "b"])
for log in (facts, rows) if {3} else (rows, facts):
    log()
    if {4}:
        run.flush()
if {5}:
    os.kill(os.getpid(), signal.SIGKILL)
run.close()
"""


def test_an_input_that_is_none_costs_the_others_nothing(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        run.log_inputs([1, 2], {"good": np.ones((2, 3), np.float32), "short": np.ones((1, 3))})
        run.log_inputs([3, 4, 5], [np.ones((2, 2)), np.ones((3, 2)), "text"])

    stats = told(tmp_path / "run", log)
    found = {(row["sample_id"], row["name"]): row["shape"] for row in stored(tmp_path / "run", "inputs")}
    assert found == {(1, "good"): [3], (2, "good"): [3], (3, ""): [2, 2], (4, ""): [3, 2]}
    assert stats["records_dropped"] == 3
    assert set(stats["refused"]["inputs"]) == {"short has shape (1, 3) for 2 ids", "inputs is not numeric: <U4"}


def test_a_row_of_scores_of_another_length_is_left_out_alone(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        logits = [[0.0, 2.0], [1.0, 2.0, 3.0], [4.0, 1.0]]
        run.log_samples(sample_id=[1, 2, 3], label=[1, 1, 1], logits=logits, own=[1.0, 2.0, 3.0], step=1, **HERE)
        run.log_samples(sample_id=[4, 5], label=[1, 1], logits=[[0.0, 2.0], [1.0, 2.0, 3.0]], step=1, **HERE)

    stats = told(tmp_path / "run", log)
    assert column(tmp_path / "run", "prediction") == [1, None, 0, None, None]
    assert column(tmp_path / "run", "correct") == [True, None, False, None, None]
    assert column(tmp_path / "run", "own") == [1.0, 2.0, 3.0, None, None]
    loss: list[Any] = column(tmp_path / "run", "loss")
    assert loss[0] == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)
    assert loss[1] is None
    assert stats["refused"]["logits"] == {
        "logits has a row that is not of 2 numbers as most are": 1,
        "logits has rows of different lengths, 2 to 3": 2,  # which of the two is meant nobody knows
    }


def test_a_name_of_float64_that_no_metric_has_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", float64=["los", "own"])
    run.log_samples(sample_id=[1], loss=[0.5], own=[1.0], step=1, **HERE)
    with pytest.warns(RecorderWarning, match="float64 names los, and no such metric came; there were: loss, own"):
        run.close()


@pytest.mark.parametrize("task", [None, "regression"])
def test_a_name_of_float64_that_follows_from_others_is_not(tmp_path: Path, task: str | None) -> None:
    names = ["abs_error"] if task else ["loss"]
    run = Run(tmp_path / "run", float64=names, task=task)
    given: dict[str, Any] = {} if task else {"loss": [1.0]}
    run.log_samples(sample_id=[1], label=[1.0], prediction=[0.5], step=1, **given, **HERE)
    run.close()
