"""Questions about training dynamics whose label key is a fact."""

from __future__ import annotations

from pathlib import Path

import pytest

import xaicli

CAMERAS = ["front", "rear", "front", "rear"]
LOSS = [0.1, 0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    root: Path = tmp_path_factory.mktemp("facts") / "run"
    with xaicli.Run(root, resume="never", label_names=["cat", "dog"]) as run:
        run.log_facts([0, 1, 2, 3], camera=CAMERAS, night=[True, False, True, False])
        for epoch in (1, 2, 3):
            run.log_samples(
                sample_id=[0, 1, 2, 3],
                label=[0, 1, 1, 0],
                prediction=[0, 0, 1, 1],
                loss=LOSS,
                mode="eval",
                epoch=epoch,
                step=epoch,
            )
    return xaicli.open_run(root)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(("key", "value"), [("camera", "front"), ("night", True)])
def test_limited_to_a_fact(opened, key, value, engine):
    if engine == "duckdb":
        pytest.importorskip("duckdb")
    rows = opened.dynamics(label_key=key, label_map={"V": value}, engine=engine).data.sort("sample_id")
    assert rows["sample_id"].to_list() == [0, 2]
    assert rows["label"].to_list() == [value, value]
    assert rows["loss_mean"].to_list() == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_labels_are_the_fact(opened, engine):
    if engine == "duckdb":
        pytest.importorskip("duckdb")
    rows = opened.dynamics(label_key="camera", engine=engine).data.sort("sample_id")
    assert rows["label"].to_list() == CAMERAS
    assert rows["correctness"].to_list() == [3, 0, 3, 0]


def test_samples_and_choices_of_a_fact(opened):
    asked = {"label_key": "camera", "label_map": {"V": "rear"}}
    assert set(opened.samples(stat="loss_mean", **asked).data["sample_id"]) == {1, 3}
    assert opened.select(rule="hardest", n=1, **asked).data["sample_id"].to_list() == [3]
    assert set(opened.select(rule="random", n=2, **asked).data["sample_id"]) == {1, 3}
    assert set(opened.select(rule="balanced", n=2, **asked).data["sample_id"]) == {1, 3}


def test_shared_out_by_a_fact(opened):
    chosen = opened.select(rule="balanced", n=2, label_key="camera").data
    assert sorted(chosen["label"]) == ["front", "rear"]
    assert all(CAMERAS[row["sample_id"]] == row["label"] for row in chosen.iter_rows(named=True))
