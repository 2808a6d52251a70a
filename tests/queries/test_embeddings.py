"""The colours of collected embeddings: of the sample, in whichever pass over the data they were collected."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli
from xaicli.errors import UsageError, XaiError
from xaicli.queries.embeddings import kept_vectors

IDS = [3, 1, 2]
VECTORS = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0]], np.float32)


def collected(folder: Path, *parts: dict[str, Any], **samples: Any) -> xaicli.RunReader:
    with xaicli.Run(folder, label_names=["cat", "dog", "owl"]) as run:
        if samples:
            run.log_samples(sample_id=[1, 2, 3], mode="eval", epoch=1, **samples)
            run.log_samples(sample_id=[9], label=[2], mode="train", epoch=1)
        for columns in parts:
            run.add_metrics_data(columns, name="metrics")
    return xaicli.open_run(folder)


def colours(run: xaicli.RunReader, **how: Any) -> dict[int, Any]:
    return dict(run.embeddings(**how).data.select("sample_id", "colour").iter_rows())


@pytest.mark.parametrize("first", [0, 1])
def test_a_colour_collected_in_another_pass_is_the_samples(tmp_path: Path, first: int) -> None:
    parts = [{"sample_id": IDS, "vector": VECTORS}, {"sample_id": [1, 2, 3], "label": [0, 1, 2], "loss": [0.5, 1, 2]}]
    run = collected(tmp_path / "run", parts[first], parts[1 - first])
    assert colours(run, colour="loss") == {1: 0.5, 2: 1.0, 3: 2.0}
    assert colours(run, colour="label") == colours(run) == {1: "0", 2: "1", 3: "2"}
    assert run.embeddings().data["x"].to_list() == [0.0, 2.0, 4.0]


def test_a_loss_is_of_the_epoch_of_the_embedding_and_a_label_of_any(tmp_path: Path) -> None:
    known = {"sample_id": IDS, "label": [2, 0, 1]}
    vectors = {"sample_id": IDS, "epoch": [2] * 3, "vector": VECTORS}
    run = collected(
        tmp_path / "run",
        known | {"epoch": [1] * 3, "loss": [1.0, 1.0, 1.0]},
        vectors,
        known | {"epoch": [2] * 3, "loss": [2.0, 2.5, 3.0]},
        known | {"epoch": [3] * 3, "loss": [9.0, 9.0, 9.0]},
    )
    assert colours(run, colour="loss") == {3: 2.0, 1: 2.5, 2: 3.0}
    late = collected(tmp_path / "late", known | {"epoch": [1] * 3, "loss": [1.0] * 3}, vectors)
    assert colours(late, colour="label") == {3: "2", 1: "0", 2: "1"}
    with pytest.raises(XaiError, match="no embedding of epoch 2 is of a sample that has loss there"):
        late.embeddings(colour="loss")


def test_the_runs_labels_colour_what_was_collected_without(tmp_path: Path) -> None:
    run = collected(tmp_path / "run", {"sample_id": IDS, "vector": VECTORS}, label=[0, 1, 1], loss=[1.0, 2.0, 3.0])
    answer = run.embeddings(colour="label").answer
    assert dict(answer.data.select("sample_id", "colour").iter_rows()) == {1: "cat", 2: "dog", 3: "dog"}
    assert answer.extra["classes"] == ["cat", "dog", "owl"]
    assert colours(run) == colours(run, colour="label")
    with pytest.raises(XaiError, match="no column or fact 'loss'"):
        run.embeddings(colour="loss")


def test_a_sample_of_two_labels_has_no_colour_and_a_table_without_ids_none_of_the_runs(tmp_path: Path) -> None:
    known = {"sample_id": [9, 1, 2], "vector": VECTORS}
    run = collected(tmp_path / "run", known, label=[0, 1, 1])
    assert colours(run) == {9: "owl", 1: "cat", 2: "dog"}
    with xaicli.Run(tmp_path / "both", label_names=["cat", "dog", "owl"]) as both:
        both.log_samples(sample_id=[1, 2, 9], label=[0, 1, 1], mode="eval", epoch=1)
        both.log_samples(sample_id=[9], label=[2], mode="train", epoch=1)
        both.add_metrics_data(known, name="metrics")
    answer = xaicli.open_run(tmp_path / "both").embeddings().answer
    assert dict(answer.data.select("sample_id", "colour").iter_rows()) == {1: "cat", 2: "dog", 9: None}
    assert answer.warnings == ("1 sample has another label in another mode or data set, and no colour",)
    rows = collected(tmp_path / "rows", {"example_id": [0, 1, 2], "vector": VECTORS}, label=[0, 1, 1])
    assert rows.embeddings().answer.selection["colour"] is None
    with pytest.raises(XaiError, match="no column 'label'"):
        rows.embeddings(colour="label")


def test_a_row_without_a_label_has_the_runs_and_what_no_one_knows_is_counted(tmp_path: Path) -> None:
    """One pass collected labels, and a later one of another split did not: its pictures had no colour."""
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog", "owl"]) as run:
        run.log_samples(sample_id=[1, 2, 3, 4], label=[0, 1, 1, 2], mode="eval", epoch=1)
        run.log_samples(sample_id=[2], label=[0], mode="train", epoch=1)
        run.add_metrics_data(
            {"sample_id": IDS, "split": [""] * 3, "vector": VECTORS, "label": [2, 2, 2]}, name="metrics"
        )
        later = {"sample_id": [4, 3, 2, 8, 7], "split": ["val"] * 5, "vector": np.arange(10.0).reshape(5, 2)}
        run.add_metrics_data(later, name="metrics")
    answer = xaicli.open_run(tmp_path / "run").embeddings().answer
    told = answer.data.select("split", "sample_id", "colour").rows()
    # A row's own label counts before the run's: 3 was an owl when it was collected. 2 has two labels in the run.
    assert told[:3] == [("", 3, "owl"), ("", 1, "owl"), ("", 2, "owl")]
    assert told[3:] == [("val", 4, "owl"), ("val", 3, "dog"), ("val", 2, None), ("val", 8, None), ("val", 7, None)]
    assert answer.warnings == (
        "1 sample has another label in another mode or data set, and no colour",
        "2 of 8 samples shown have no label, and no colour",
    )


def test_samples_without_the_colour_asked_for_are_counted(tmp_path: Path) -> None:
    run = collected(tmp_path / "run", {"sample_id": IDS, "vector": VECTORS}, {"sample_id": [1], "loss": [0.5]})
    answer = run.embeddings(colour="loss").answer
    assert dict(answer.data.select("sample_id", "colour").iter_rows()) == {3: None, 1: 0.5, 2: None}
    assert answer.warnings == ("2 of 3 samples shown have no loss, and no colour",)


def test_a_colour_may_be_called_like_an_axis(tmp_path: Path) -> None:
    part = {"sample_id": IDS, "x": [7.0, 8.0, 9.0], "y": [4, 5, 6], "vector": VECTORS}
    run = collected(tmp_path / "run", part, part | {"split": ["test"] * 3})
    assert colours(run, colour="x") == {3: 7.0, 1: 8.0, 2: 9.0}
    assert colours(run, colour="y", split="test") == {3: "4", 1: "5", 2: "6"}
    assert run.embeddings(colour="x").data.select("x", "y").unique(maintain_order=True).rows() == [
        tuple(point) for point in VECTORS.tolist()
    ]


def test_dots_say_the_facts_of_their_samples_and_are_coloured_by_them(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3, 9], camera=["front", None, "rear", "top"], seen=["2024-01-02", None, None, None])
        run.log_facts([1, 2, 3], weight=[10, 20, 30], day=[date(2024, 1, 1), date(2024, 1, 2), None])
        run.add_metrics_data({"sample_id": IDS, "vector": VECTORS, "loss": [0.5, 1.5, 2.5]}, name="metrics")
    run = xaicli.open_run(tmp_path / "run")
    camera = {1: "front", 2: None, 3: "rear"}
    answer = run.embeddings(colour="camera").answer
    assert dict(answer.data.select("sample_id", "colour").iter_rows()) == camera
    assert {i: facts["camera"] for i, facts in answer.data.select("sample_id", "facts").iter_rows()} == camera
    assert answer.warnings == ("1 of 3 samples shown has no camera, and no colour",)
    assert colours(run, colour="weight") == {1: "10", 2: "20", 3: "30"}
    assert colours(run, colour="day") == {1: "2024-01-01", 2: "2024-01-02", 3: None}
    page = run.embeddings().html()
    assert '"#1 1.5 · camera front · seen 2024-01-02 · weight 10 · day 2024-01-01"' in page
    assert '"#3 0.5 · camera rear · weight 30"' in page
    (tmp_path / "more.csv").write_text("sample_id,site\n1,north\n2,south\n3,north\n")
    told = run.embeddings(facts=tmp_path / "more.csv", colour="site")
    assert dict(told.data.select("sample_id", "colour").iter_rows()) == {1: "north", 2: "south", 3: "north"}
    assert told.answer.selection["facts"] == str(tmp_path / "more.csv")
    hidden = run.embeddings(no_facts=True)
    assert "facts" not in hidden.data.columns
    assert "front" not in hidden.html()
    with pytest.raises(XaiError, match="no column or fact 'camera'") as unknown:
        run.embeddings(no_facts=True, colour="camera")
    assert unknown.value.hint == ("--no-facts leaves out every fact; known columns and facts: sample_id, vector, loss")


def test_many_whole_numbers_are_a_scale(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(11), size=range(11))
        run.add_metrics_data({"sample_id": range(11), "vector": np.ones((11, 2), np.float32)}, name="metrics")
    assert colours(xaicli.open_run(tmp_path / "run"), colour="size") == {i: float(i) for i in range(11)}


def test_rows_that_say_no_sample_have_no_facts(tmp_path: Path) -> None:
    """The number of a row is no sample's id."""
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1, 2], camera=["front", "rear", "top"])
        run.add_metrics_data({"example_id": [0, 1, 2], "vector": VECTORS}, name="metrics")
    (tmp_path / "more.csv").write_text("sample_id,site\n0,north\n")
    run = xaicli.open_run(tmp_path / "run")
    answer = run.embeddings().answer
    assert "facts" not in answer.data.columns
    assert answer.warnings == (
        "facts are known by sample_id, and the rows of table 'metrics' say example_id: none are shown",
    )
    assert run.embeddings(no_facts=True).answer.warnings == ()
    with pytest.raises(UsageError, match=r"--facts are known by sample_id, .* say example_id"):
        run.embeddings(facts=tmp_path / "more.csv")
    with pytest.raises(XaiError, match="no column or fact 'camera'"):
        run.embeddings(colour="camera")


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("values", [[[3, 0, 0], [0, 4, 0], [0, 0, 5]], np.diag([3, 4, 5]), [*np.diag([3.0, 4.0, 5.0])]])
def test_lists_that_are_said_to_be_embeddings_are(tmp_path: Path, values: Any, size: int | None) -> None:
    said = {"emb": xaicli.Embedding("emb", size) if size else xaicli.Embedding("emb")}
    expected = collected(tmp_path / "plain", {"sample_id": IDS, "emb": np.diag([3.0, 4.0, 5.0])})
    with xaicli.Run(tmp_path / "run") as run:
        run.add_metrics_data({"sample_id": IDS, "emb": values}, name="metrics", override_column_schemas=said)
    opened = xaicli.open_run(tmp_path / "run")
    kept = kept_vectors(opened.reader())
    assert kept.vectors.tolist() == [[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
    assert kept.ids.to_list() == IDS
    places = [one.embeddings(colour=None).data.select("sample_id", "x", "y") for one in (opened, expected)]
    assert places[0].equals(places[1])


def test_embeddings_of_several_lengths_have_no_plane(tmp_path: Path) -> None:
    said = {"emb": xaicli.Embedding("emb")}
    with xaicli.Run(tmp_path / "run") as run:
        run.add_metrics_data({"sample_id": [1, 2], "emb": [[1.0], [1.0, 2.0]]}, override_column_schemas=said)
    with pytest.raises(XaiError, match="no embeddings: the vectors of emb are not of one length"):
        xaicli.open_run(tmp_path / "run").embeddings()
