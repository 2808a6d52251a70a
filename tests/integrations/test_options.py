"""The arguments of the callbacks: what makes no sense is refused before a training begins, the run's are handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import xaicli
from xaicli.errors import XaiError
from xaicli.integrations.options import OF_RUN, settled
from xaicli.integrations.recording import Recording

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"keep_prob": True}, "no argument 'keep_prob' in XaiCallback", "did you mean keep_probs"),
    ({"epochs": 3}, "no argument 'epochs' in XaiCallback", "known arguments"),
    ({"keep_probs": "yes"}, "keep_probs='yes'", "Run"),
    ({"epoch_frequency": 0}, "epoch_frequency=0", "Run"),
    ({"ignore_label": 1.5}, "ignore_label=1.5", "Run"),
    ({"float64": True}, "float64=True must be names of metrics", "Run"),
    ({"resume": "maybe"}, "no way to resume 'maybe'", "allow, never, must"),
    ({"samples_fn": {"loss": 1}}, "samples_fn=", "lambda batch, output"),
    ({"ids": 1.5}, "ids=1.5", "image_id"),
    ({"task": "clasification"}, "no task 'clasification'", "did you mean classification"),
    ({"facts": ("colour",)}, "no fact 'colour'", "text"),
    ({"keep_inputs": -1}, "keep_inputs must be non-negative", "samples of each mode"),
    ({"keep_inputs": "all"}, "keep_inputs must be a whole number", "samples of each mode"),
    ({"save_checkpoint": "best.pt"}, "save_checkpoint='best.pt'", "True or False"),
    ({"label_names": "cat"}, "label_names='cat'", "dog"),
    ({"dataloader_args": [1]}, "dataloader_args=", "batch_size"),
    ({"collect_epochs": "often"}, "no choice of epochs 'often'", "every, last, never"),
    ({"collect_epochs": 1.5}, "collect_epochs=1.5", "list of epochs"),
    ({"tokenizer": "bert-base-uncased"}, "tokenizer='bert-base-uncased'", "AutoTokenizer"),
    ({"collectors": len}, "tables and collectors belong together", "tables="),
]


@pytest.mark.parametrize(
    ("options", "says", "hint"), REFUSED, ids=[next(iter(o)) + str(i) for i, (o, *_) in enumerate(REFUSED)]
)
@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_what_makes_no_sense_is_refused_by_name(
    library: str, options: dict[str, Any], says: str, hint: str, tmp_path: Path
) -> None:
    pytest.importorskip(library)
    callback: Any = __import__(f"xaicli.integrations.{library}", fromlist=["XaiCallback"]).XaiCallback
    with pytest.raises(XaiError) as raised:
        callback(tmp_path / "run", **options)
    assert says in raised.value.message
    assert hint in raised.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_an_argument_without_a_name_is_refused(library: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    callback: Any = __import__(f"xaicli.integrations.{library}", fromlist=["XaiCallback"]).XaiCallback
    with pytest.raises(XaiError, match="the run alone without a name: 3") as raised:
        callback(tmp_path / "run", 3)
    assert "keep_inputs=3" in raised.value.hint


def test_one_metric_in_double_precision_may_be_a_text_alone(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", float64="loss") as run:
        run.log_samples(sample_id=[1], mode="train", epoch=1, step=1, loss=[1 / 3], os=[1 / 3])
    frame = pl.read_parquet(tmp_path / "run" / "data")
    assert (frame.schema["loss"], frame.schema["os"]) == (pl.Float64(), pl.Float32())
    assert frame["loss"].to_list() == [1 / 3]


def test_no_run_and_no_path_are_refused() -> None:
    with pytest.raises(XaiError, match="needs a place") as raised:
        settled(Recording, None, {})
    assert "runs/exp1" in raised.value.hint
    with pytest.raises(XaiError, match="no path"):
        settled(Recording, 7, {})


def test_arguments_of_a_run_that_is_open_are_said_to_it(tmp_path: Path) -> None:
    with (
        xaicli.Run(tmp_path / "run") as run,
        pytest.raises(XaiError, match="keep_probs is an argument of the run") as raised,
    ):
        settled(Recording, run, {"keep_probs": True})
    assert "Run(..., keep_probs=True)" in raised.value.hint


def test_the_arguments_of_a_run_are_handed_on(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "keep_probs": True, "ignore_label": 9, "epoch_frequency": 2, "name": "mine", "config": {"a": 1},
        "resume": "never", "strict": True, "float64": ["far"], "keep_tokens": False,
    }  # fmt: skip
    assert set(given) == set(OF_RUN)
    recording = Recording(tmp_path / "run", **settled(Recording, tmp_path / "run", {**given, "save_checkpoint": False}))
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    for epoch in (1, 2):
        recording.at(epoch, epoch)
        columns = {"logits": logits, "label": torch.tensor([0, 9]), "far": torch.tensor([0.1, 0.2])}
        recording.log(columns, sample_id=[1, 2], mode="train")
        recording.release()  # as between two entry points; resume="never" is about the first opening
    frame = pl.read_parquet(tmp_path / "run" / "data")
    assert frame["epoch"].to_list() == [2, 2]
    assert frame["label"].to_list() == [0, None]
    assert frame.schema["far"] == pl.Float64()
    expected = torch.softmax(logits, 1)
    for row, kept in zip(expected, frame["probs"].to_list(), strict=True):
        assert kept == pytest.approx(row.tolist(), abs=1e-3)
    manifest = xaicli.open_run(tmp_path / "run").layout.read_manifest()
    assert (manifest.name, manifest.config) == ("mine", {"a": 1})


def test_sets_of_classes_are_kept_beside_inputs(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    labels = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with xaicli.Run(tmp_path / "sets", strict=True, task="multilabel") as run:
        run.log_inputs([1, 2, 3], torch.eye(3), label=torch.tensor(labels))
        run.log_inputs([4], torch.ones(1, 3), label=[[2, 0]])
    with xaicli.Run(tmp_path / "classes", strict=True, task="classification") as run:
        run.log_inputs([1, 2], torch.eye(3)[:2], label=torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.2, 0.3]]))
    with xaicli.Run(tmp_path / "untold", strict=True) as run:
        run.log_inputs([1, 2], torch.eye(3)[:2], label=[[0], [1, 2]])

    def kept(name: str) -> dict[int, Any]:
        found = pq.read_table(tmp_path / name / "inputs").to_pylist()
        return {row["sample_id"]: row["label"] for row in found}

    assert kept("sets") == {1: [0, 2], 2: [], 3: [1], 4: [0, 2]}
    assert kept("classes") == {1: 1, 2: 0}
    assert kept("untold") == {1: [0], 2: [1, 2]}
