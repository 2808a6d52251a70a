"""`xai collect` and `xai embeddings` through the command line's entrance."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image as Pictures
from torch import nn
from torch.nn import functional

import xaicli
from xaicli.checkpoint.save import save_checkpoint

N = 40
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).eval()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a checkpoint and an .npz."""
    save_checkpoint(model(), tmp_path / "ckpt.pt", example_inputs=X[:2], label_names=["no", "yes"], epoch=7, step=70)
    np.savez(tmp_path / "data.npz", x=X.numpy(), y=Y.numpy())
    return tmp_path


def test_a_checkpoint_over_data_into_a_new_run(place: Path, xai: Any) -> None:
    run = place / "runs" / "new"
    status, out, err = xai(
        "collect", run, "--model", place / "ckpt.pt", "--data", place / "data.npz", "--split", "val", "--json"
    )
    assert status == 0, err
    answer = json.loads(out)
    assert answer["command"] == "collect"
    assert answer["counts"] == {"rows": N, "non_finite": 0, "dropped": 0}
    assert answer["selection"]["epoch"] == 7
    by_column = {row["column"]: row for row in answer["rows"]}
    assert not {"example_id", "epoch", "checkpoint"} & set(by_column)
    with torch.no_grad():
        loss = functional.cross_entropy(model()(X), Y, reduction="none")
    assert by_column["loss"]["mean"] == pytest.approx(float(loss.mean()), abs=1e-6)
    assert by_column["predicted"]["type"] == "categorical"
    assert [by_column[name][figure] for name in ("label", "predicted") for figure in ("mean", "min", "max")] == [
        None
    ] * 6
    stored = pl.read_parquet(run / "tables" / "metrics" / "*.parquet").sort("example_id")
    assert stored["loss"].to_list() == pytest.approx(loss.tolist(), abs=1e-5)
    assert stored["sample_id"].to_list() == list(range(N))
    assert set(stored["split"]) == {"val"}
    assert (set(stored["epoch"]), set(stored["step"])) == ({7}, {70})
    scalars = pl.read_parquet(run / "scalars" / "*.parquet")
    values = dict(zip(scalars["key"], scalars["value"], strict=True))
    assert values["val/accuracy"] == pytest.approx(float((model()(X).argmax(1) == Y).float().mean()))
    status, out, _ = xai("collect", run, "--model", place / "ckpt.pt", "--data", place / "data.npz", "--no-aggregates")
    assert status == 0
    assert "40 rows in metrics." in out
    assert "loss" in out


@pytest.mark.parametrize("workers", [0, 1])
def test_texts_of_a_file_that_are_no_class_are_told(place: Path, xai: Any, workers: int) -> None:
    texts: list[str | None] = [("no", "yes")[k] for k in Y.tolist()]
    texts[3], texts[7], texts[9] = "?", "?", None
    data = pl.DataFrame({"x": X.tolist(), "label": texts})
    data.write_parquet(place / "data.parquet")
    run = place / "run"
    status, out, err = xai(
        "collect", run, "--model", place / "ckpt.pt", "--data", place / "data.parquet", "--json", "--workers", workers
    )
    assert status == 0, err
    said = "2 of 40 labels are none of the model's classes ('?'): what needs a label is missing for them"
    assert said in json.loads(out)["warnings"]
    stored = pl.read_parquet(run / "tables" / "metrics" / "*.parquet").sort("example_id")
    assert stored["label"].to_list() == [None if i in (3, 7, 9) else k for i, k in enumerate(Y.tolist())]
    assert stored["loss"].null_count() == 3


@pytest.mark.parametrize("labels", [[1.5, 2.5, None, -100.0], [1, 2, None, -100], ["1.5", "2.5", "?", "-100"]])
def test_a_value_that_is_missing_is_no_value(tmp_path: Path, xai: Any, labels: list[Any]) -> None:
    net = nn.Linear(6, 1).eval()
    save_checkpoint(net, tmp_path / "ckpt.pt", example_inputs=X[:2])
    pl.DataFrame({"x": X[:4].tolist(), "label": labels}).write_parquet(tmp_path / "data.parquet")
    run = tmp_path / "run"
    status, out, err = xai(
        "collect", run, "--model", tmp_path / "ckpt.pt", "--data", tmp_path / "data.parquet", "--task", "regression",
        "--json",
    )  # fmt: skip
    assert status == 0, err
    stored = pl.read_parquet(run / "tables" / "metrics" / "*.parquet").sort("example_id").fill_nan(None)
    truth = [None if label in (None, "?") else float(label) for label in labels]
    assert stored["label"].to_list() == truth
    predicted = net(X[:4])[:, 0].tolist()
    want = [None if t is None else pytest.approx((t - p) ** 2, rel=1e-5) for t, p in zip(truth, predicted, strict=True)]
    assert stored["loss"].to_list() == want
    told = [text for text in json.loads(out)["warnings"] if "no number ('?')" in text]
    assert len(told) == ("?" in labels)


def test_a_later_collection_with_other_names_says_whose_rows_it_renames(place: Path, xai: Any) -> None:
    run = place / "run"

    def collected(*names: str) -> list[str]:
        words = ["--model", place / "plain.pt", "--data", place / "data.npz", "--json", *names]
        status, out, err = xai("collect", run, *words)
        assert status == 0, err
        return [text for text in json.loads(out)["warnings"] if "earlier rows" in text]

    def named() -> set[str]:
        status, out, err = xai("samples", run, "--table", "metrics", "--metric", "loss", "--max", N, "--min", 0)
        assert status == 0, err
        return {"no", "yes", "nein", "ja"} & set(out.split())

    other = (
        "earlier rows of the table metrics gave the classes of label and predicted other names; all are told by those "
    )
    save_checkpoint(model(), place / "plain.pt", example_inputs=X[:2], epoch=7, step=70)
    assert collected("--label-names", "no,yes") == []
    assert collected("--label-names", "no,yes") == []
    assert collected("--label-names", "nein,ja,vielleicht") == [other + "of now: 'no' is 'nein', 'yes' is 'ja'"]
    assert named() == {"nein", "ja"}
    assert collected() == []
    assert named() == {"nein", "ja"}
    assert collected("--label-names", "nein,ja") == [other + "of now: 'vielleicht' has no name"]


def test_rows_of_a_table_with_other_names_say_whose_rows_they_rename(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for names in (["cat", "dog"], ["cat", "dog", "bird"]):
            schemas = {"label": xaicli.CategoricalLabel("label", names)}
            run.add_metrics_data({"label": [0, 1]}, override_column_schemas=schemas, name="t")
        schemas = {"label": xaicli.CategoricalLabel("label", ["cat", "wolf", "bird"])}
        with pytest.warns(UserWarning, match="table t gave the classes of label other names.*: 'dog' is 'wolf'$"):
            run.add_metrics_data({"label": [0, 1]}, override_column_schemas=schemas, name="t")


def test_collectors_by_module_and_layers_with_arch(place: Path, xai: Any) -> None:
    (place / "own.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))\n"
        "def largest(batch, output):\n    return {'largest': output.forward.max(1).values}\n"
    )
    torch.save(model().state_dict(), place / "weights.pt")
    run = place / "run"
    status, out, err = xai(
        "collect", run, "--model", place / "weights.pt", "--arch", "own:net", "--pythonpath", place,
        "--data", place / "data.npz", "--collectors", "classification,embeddings,own:largest", "--layers", "0",
        "--label-names", "no,yes", "--batch-size", 16,
    )  # fmt: skip
    assert status == 0, err
    stored = pl.read_parquet(run / "tables" / "metrics" / "*.parquet").sort("example_id")
    with torch.no_grad():
        assert stored["largest"].to_list() == pytest.approx(model()(X).max(1).values.tolist(), abs=1e-6)
        hidden = model()[0](X).numpy()  # type: ignore[index]
    assert np.allclose(np.asarray(stored["embeddings_0"].to_list()), hidden, atol=1e-6)

    status, out, err = xai("embeddings", run, "--colour", "predicted", "--json", "--format", "html,png,csv")
    assert status == 0, err
    answer = json.loads(out)
    assert [Path(path).suffix for path in answer["outputs"]].count(".png") == 1
    assert answer["selection"]["column"] == ["embeddings_0_pca"]
    rows = {row["sample_id"]: row for row in answer["rows"]}
    assert len(rows) == N
    reduced = np.asarray(stored["embeddings_0_pca"].to_list())
    assert [rows[i]["x"] for i in range(N)] == pytest.approx(reduced[:, 0].tolist(), abs=1e-6)
    assert {row["colour"] for row in answer["rows"]} == {"no", "yes"}
    assert answer["classes"] == ["no", "yes"]
    page = (run / "reports" / "embeddings.html").read_text()
    assert "embeddings_0_pca" in page
    assert "no" in page

    status, out, err = xai("embeddings", run, "--column", "embeddings_0", "--colour", "loss", "--json")
    assert status == 0, err
    centred = hidden - hidden.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    projected = np.asarray(
        [[row["x"], row["y"]] for row in sorted(json.loads(out)["rows"], key=lambda r: r["sample_id"])]
    )
    assert np.allclose(np.abs(projected), np.abs(centred @ directions[:2].T), atol=1e-4)


def test_layers_of_an_exported_graph(place: Path, xai: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())
            self.head = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.features(x))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Net()
    net(X)
    save_checkpoint(net.eval(), place / "graph.pt", example_inputs=X[:2], label_names=["no", "yes"])
    arguments = ("collect", place / "run", "--model", place / "graph.pt", "--data", place / "data.npz")
    status, _, err = xai(
        *arguments, "--collectors", "classification,embeddings", "--layers", "features.0,features.1,relu,head"
    )
    assert status == 0, err
    stored = pl.read_parquet(place / "run" / "tables" / "metrics" / "*.parquet").sort("example_id")
    with torch.no_grad():
        expected = {
            "features.0": net.features[0](X),
            "features.1": net.features[:2](X),
            "relu": net.features(X),
            "head": net(X),
        }
        loss = functional.cross_entropy(net(X), Y, reduction="none")
    for layer, values in expected.items():
        assert np.allclose(np.asarray(stored[f"embeddings_{layer}"].to_list()), values.numpy(), atol=1e-5), layer
    assert stored["loss"].to_list() == pytest.approx(loss.tolist(), abs=1e-5)
    status, _, err = xai(*arguments, "--collectors", "embeddings", "--layers", "features.9")
    assert status == 1
    assert "no layer 'features.9' in the model" in err
    assert "features.0" in err


def test_pictures_of_a_folder_and_one_that_cannot_be_read(place: Path, xai: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("no/a", "no/b", "yes/c", "yes/d"):
        path = place / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pictures.fromarray(rng.integers(0, 255, (4, 4), dtype=np.uint8)).save(path)
    (place / "pictures" / "no" / "b.png").write_bytes(b"no picture")
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    save_checkpoint(net, place / "flat.pt", example_inputs=torch.zeros(2, 1, 4, 4), label_names=["no", "yes"])
    run = place / "run"
    arguments = ("collect", run, "--model", place / "flat.pt", "--data", place / "pictures", "--json")
    status, out, err = xai(*arguments)
    assert status == 0, err
    answer = json.loads(out)
    assert answer["counts"]["dropped"] == 1
    assert "b.png" in answer["warnings"][0]
    stored = pl.read_parquet(run / "tables" / "metrics" / "*.parquet")
    assert stored["label"].to_list() == [0, 1, 1]
    assert len(stored["sample_id"].unique()) == 3
    status, _, err = xai(*arguments, "--strict")
    assert status == 1
    assert "b.png" in err


def test_a_table_of_the_user_s_own_with_boxes(place: Path, xai: Any) -> None:
    (place / "shapes.py").write_text(
        "import torch, xaicli\nfrom torch import nn\n"
        "TRUTH = [{'boxes': [[0, 0, 10, 10]], 'labels': [0]},\n"
        "         {'boxes': [[0, 0, 4, 4], [5, 5, 9, 9]], 'labels': [1, 0]}]\n"
        "TABLE = xaicli.Table([(torch.tensor(float(i)), t) for i, t in enumerate(TRUTH)],\n"
        "                     collate_fn=lambda samples: tuple(zip(*samples)))\n"
        "class Detector(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.score = nn.Parameter(torch.tensor(0.5))\n"
        "    def forward(self, images):\n"
        "        one = {'boxes': [[0, 0, 4, 4]], 'labels': [1], 'scores': [float(self.score)]}\n"
        "        return [one for _ in images]\n"
    )
    torch.save({"score": torch.tensor(0.25)}, place / "detector.pt")
    status, out, err = xai(
        "collect", place / "run", "--model", place / "detector.pt", "--arch", "shapes:Detector", "--pythonpath", place,
        "--data", "shapes:TABLE", "--collectors", "boxes", "--label-names", "ant,bee", "--iou", 0.9, "--json",
    )  # fmt: skip
    assert status == 0, err
    assert {row["table"] for row in json.loads(out)["rows"]} == {"boxes", "metrics"}
    boxes = pl.read_parquet(place / "run" / "tables" / "boxes" / "*.parquet")
    assert boxes.select("example_id", "source", "outcome").rows() == [
        (0, "gt", "fn"),
        (0, "pred", "fp"),
        (1, "gt", "tp"),
        (1, "gt", "fn"),
        (1, "pred", "tp"),
    ]
    assert boxes["confidence"].drop_nulls().to_list() == [0.25, 0.25]


def test_inputs_kept_in_the_run_are_the_default_data(place: Path, xai: Any) -> None:
    with xaicli.Run(place / "run", label_names=["no", "yes"]) as run:
        run.state.mode = "eval"
        run.log_inputs([10 + i for i in range(N)], X, Y)
        run.save_checkpoint(model(), example_inputs=X[:2])
    status, _, err = xai("collect", place / "run", "--json")
    assert status == 0, err
    stored = pl.read_parquet(place / "run" / "tables" / "metrics" / "*.parquet")
    assert sorted(stored["sample_id"]) == [10 + i for i in range(N)]
    with torch.no_grad():
        loss = functional.cross_entropy(model()(X), Y)
    assert stored["loss"].mean() == pytest.approx(float(loss), abs=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_source_has_to_say_is_told(place: Path, xai: Any, workers: int) -> None:
    """Of kept inputs that no option changes; of folders that are no labels; of pictures brought to the model's size."""
    with xaicli.Run(place / "run", label_names=["no", "yes"]) as run:
        run.log_inputs(list(range(N)), X, Y)
        run.save_checkpoint(model(), example_inputs=X[:2])
    how = ("--json", "--workers", workers)
    status, out, err = xai("collect", place / "run", "--resize", "4,4", "--mean", ".5", *how)
    assert status == 0, err
    unused = "was not used: it is for pictures and bytes, other arrays are input as they are"
    assert json.loads(out)["warnings"] == [f"--resize {unused}", f"--mean {unused}"]
    (place / "pics" / "maybe").mkdir(parents=True)
    Pictures.fromarray(np.zeros((4, 4), np.uint8)).save(place / "pics" / "maybe" / "0.png")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    save_checkpoint(flat, place / "flat.pt", example_inputs=torch.rand(2, 1, 2, 2), label_names=["no", "yes"])
    status, out, err = xai("collect", place / "new", "--model", place / "flat.pt", "--data", place / "pics", *how)
    assert status == 0, err
    said = json.loads(out)["warnings"]
    assert "pictures were brought to 2x2, the size of the model's input: --resize says another" in said
    assert any(one.startswith("folders that are no label of the model (maybe)") for one in said)


def test_labels_of_one_class_are_no_sets(place: Path, xai: Any) -> None:
    given = ("--model", place / "ckpt.pt", "--data", place / "data.npz", "--task", "multilabel")
    status, _, err = xai("collect", place / "run", *given)
    assert status == 1
    assert "the labels are single classes, one a sample, and the task is multilabel" in " ".join(err.split())
    assert "TypeError" not in err


def test_what_runs_later_imports_from_the_folders_of_pythonpath_too(
    place: Path, xai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from those that the user's own code searches."""
    monkeypatch.setattr("sys.path", list(sys.path))
    (place / "beside").mkdir()
    for name in ("later_forward", "later_data", "later_collector", "later_target", "beside/later_beside"):
        (place / f"{name}.py").write_text("BY = 2.0\n")
    (place / "lazily.py").write_text(
        "import sys, torch\nfrom torch import nn\n"
        f"sys.path.append({str(place / 'beside')!r})\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))\n"
        "    def forward(self, x):\n        import later_forward, later_beside\n"
        "        return super().forward(x) * later_forward.BY\n"
        "class Rows(torch.utils.data.Dataset):\n"
        "    def __len__(self):\n        return 4\n"
        "    def __getitem__(self, i):\n        import later_data\n"
        "        return torch.arange(6.0) * later_data.BY + i, i % 2\n"
        "def doubled(batch, output):\n    import later_collector\n"
        "    return {'doubled': output.forward[:, 0] * later_collector.BY}\n"
        "def first(outputs):\n    import later_target\n    return outputs[:, 0] * later_target.BY\n"
    )
    torch.save(model().state_dict(), place / "weights.pt")
    built = ("--arch", "lazily:Net", "--pythonpath", place)
    given = ("--model", place / "weights.pt", "--data", "lazily:Rows", *built)
    for command in (
        ("collect", place / "run", *given, "--collectors", "classification,lazily:doubled"),
        ("saliency", *given, "--target", "lazily:first", "--methods", "gradient", "-o", place / "maps"),
        ("checkpoint", "convert", place / "weights.pt", *built, "--to", "pt2", "--input-shape", "6"),
    ):
        for name in ("lazily", "later_forward", "later_data", "later_collector", "later_target", "later_beside"):
            sys.modules.pop(name, None)
        status, _, err = xai(*command)
        assert status == 0, err
        assert str(place) not in sys.path
    stored = pl.read_parquet(place / "run" / "tables" / "metrics" / "*.parquet").sort("example_id")
    x = torch.arange(6.0) * 2 + torch.arange(4.0)[:, None]
    with torch.no_grad():
        assert stored["doubled"].to_list() == pytest.approx((model()(x)[:, 0] * 4).tolist(), abs=1e-5)


def test_options_that_reach_nothing_are_refused_or_told(place: Path, xai: Any) -> None:
    """Also those that are spelled out with their default."""
    (place / "fed.py").write_text(f"import numpy\ndef pixels(): return numpy.load({str(place / 'x.npy')!r})\n")
    np.save(place / "x.npy", X.numpy())
    given = ("collect", place / "run", "--model", place / "ckpt.pt", "--data", "fed:pixels", "--pythonpath", place)
    embedded = ("--collectors", "embeddings", "--layers", "0")
    for options, said in (
        (("--iou", "0.5"), "--iou is an option of --collectors boxes or masks"),
        (("--reshape", "mean"), "--reshape is an option of --collectors embeddings"),
        (("--mode", "eval"), "--mode: the samples of fed:pixels have no mode"),
        ((*embedded, "--reduction", "none", "--components", "2"), "--reduction none keeps all dimensions"),
    ):
        status, _, err = xai(*given, *options)
        assert status == 2, err
        assert said in " ".join(err.split())
    status, out, err = xai(*given, "--arch-args", "{}", "--json")
    assert status == 0, err
    assert "--arch-args was not used: they are arguments of --arch" in json.loads(out)["warnings"]


def test_a_mode_that_no_kept_inputs_have(place: Path, xai: Any) -> None:
    with xaicli.Run(place / "run") as run:
        run.log_inputs(list(range(N)), X, Y)
        run.save_checkpoint(model(), example_inputs=X[:2])
    status, _, err = xai("collect", place / "run", "--mode", "train")
    assert status == 1
    assert "there are some without a mode, of other samples: leave --mode out" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--collectors", "classificaton"), 1, "no collector 'classificaton'"),
        (("--collectors", "embeddings"), 2, "--collectors embeddings needs layers"),
        (("--collectors", "embeddings", "--data", "nothing.npz"), 2, "--layers NAME,... of 0, 2"),
        (("--collectors", "embeddings", "--layers", "9.9"), 1, "no layer '9.9' in the model"),
        (("--collectors", "nowhere:thing"), 1, "nowhere"),
        (("--data", "nothing.npz"), 1, "nothing.npz"),
        (("--precision", "fp8"), 1, "no precision 'fp8'"),
        (("--mean", "a"), 2, "--mean takes numbers"),
    ],
)
def test_what_does_not_exist_is_told(place: Path, xai: Any, arguments: Any, status: int, told: str) -> None:
    data = () if "--data" in arguments else ("--data", place / "data.npz")
    got, out, err = xai("collect", place / "run", "--model", place / "ckpt.pt", *data, *arguments)
    assert (got, out) == (status, "")
    assert told in err


def test_what_the_checkpoint_and_the_run_say_reaches_the_answer(place: Path, xai: Any) -> None:
    (place / "nets.py").write_text(
        "from torch import nn\n"
        "def mlp(): return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))\n"
        "def fails(): raise RuntimeError('no such file')\n"
    )
    state = model().state_dict()
    torch.save({"generator": state, "ema": {name: 2 * value for name, value in state.items()}}, place / "two.pt")
    with xaicli.Run(place / "run") as run:
        run.log_samples(sample_id=["a", "b"], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
    given = ("--data", place / "data.npz", "--pythonpath", place, "--json")
    status, out, err = xai("collect", place / "run", "--model", place / "two.pt", "--arch", "nets:mlp", *given)
    assert status == 0, err
    told = json.loads(out)["warnings"]
    assert told[0] == "took the weights under 'generator'; others by --weights: ema"
    assert told[1].startswith("the data's sample ids are integers, the run's texts")
    status, _, err = xai("collect", place / "run", "--model", place / "two.pt", "--arch", "nets:fails", *given)
    assert status == 1
    assert "--arch nets:fails fails: RuntimeError: no such file" in err
    np.savez(place / "data.npz", x=np.zeros((4, 9), np.float32), y=np.zeros(4, int))
    status, _, err = xai("collect", place / "run", "--model", place / "two.pt", "--arch", "nets:mlp", *given)
    assert status == 1
    assert "the model fails on batch 0" in err
    assert "fault of xai" not in err
    status, _, err = xai("collect", place / "new", "--model", place / "two.pt", "--arch", "nets:mlp", *given)
    assert status == 1
    assert not (place / "new").exists()  # no run of nothing is left behind
    assert (place / "run" / "xai.json").exists()


def test_embeddings_that_are_not_there_are_told(place: Path, xai: Any) -> None:
    with xaicli.Run(place / "run") as run:
        run.add_metrics_data({"example_id": [0], "a": [1.0]})
    for arguments, told in (
        ((), "the table holds no embeddings"),
        (("--table", "metrix"), "no table 'metrix'"),
        (("--column", "b"), "no embedding column 'b'"),
    ):
        status, out, err = xai("embeddings", place / "run", *arguments)
        assert (status, out) == (1, "")
        assert told in err
    # As where there is no table: the command that makes one, and the hint is not of the Python API alone.
    _, _, err = xai("embeddings", place / "run")
    assert "hint: collect them with: xai collect RUN_DIR" in err
    assert "--collectors embeddings --layers LAYER" in " ".join(err.split())


def test_a_pass_is_no_start_of_the_run_and_leaves_a_trace_of_its_own(place: Path, xai: Any) -> None:
    with xaicli.Run(place / "run", label_names=["no", "yes"], config={"lr": 0.1}) as run:
        run.log_samples(sample_id=[0], label=[0], loss=[1.0], mode="eval", epoch=1, step=1)
    before = {path.name: path.read_bytes() for path in (place / "run").glob("*.json")}
    starts = sorted((place / "run" / "attempts").glob("*.json"))
    arguments = ("collect", place / "run", "--model", place / "ckpt.pt", "--data", place / "data.npz")
    assert xai(*arguments)[0] == 0
    assert not (place / "run" / "scalars").exists()  # nothing names them
    assert xai(*arguments, "--split", "val")[0] == 0
    assert (
        xai(*arguments, "--collectors", "embeddings", "--layers", "2", "--reduction", "umap", "--components", 99)[0]
        != 0
    )
    assert {path.name: path.read_bytes() for path in (place / "run").glob("*.json")} == before
    assert sorted((place / "run" / "attempts").glob("*.json")) == starts
    scalars = pl.read_parquet(place / "run" / "scalars" / "*.parquet")
    assert {key.split("/")[0] for key in scalars["key"]} == {"val"}
    assert set(scalars["epoch"]) == {7}
    traces = [json.loads(path.read_text()) for path in sorted((place / "run" / "collections").iterdir())]
    done = [trace for trace in traces if "files" in trace]
    assert len(done) == 2
    assert all((place / "run" / file).is_file() for trace in done for file in trace["files"])
    assert {trace["asked"]["model"] for trace in traces} == {str(place / "ckpt.pt")}
    assert pl.read_parquet(place / "run" / "tables" / "metrics" / "*.parquet").height >= 2 * N
    status, out, _ = xai("doctor", place / "run", "--json")
    assert status == 0, out


def test_a_value_is_told_from_its_labels_or_asked_for(place: Path, xai: Any) -> None:
    save_checkpoint(nn.Sequential(nn.Linear(6, 1)).eval(), place / "one.pt", example_inputs=X[:2])
    np.savez(place / "values.npz", x=X.numpy(), y=X[:, 0].numpy() * 3)
    np.savez(place / "bare.npz", x=X.numpy())
    run = place / "run"
    status, out, err = xai("collect", run, "--model", place / "one.pt", "--data", place / "values.npz", "--json")
    assert status == 0, err
    columns = {row["column"] for row in json.loads(out)["rows"]}
    assert {"residual", "abs_error"} <= columns
    assert "accuracy" not in columns
    status, _, err = xai("collect", run, "--model", place / "one.pt", "--data", place / "bare.npz")
    assert status == 1
    assert "--task" in err
    status, out, err = xai(
        "collect", run, "--model", place / "one.pt", "--data", place / "bare.npz", "--task", "binary"
    )
    assert status == 0, err
    assert "read as binary, one number, the logit of class 1" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--layers", "0"), "--layers is an option of --collectors embeddings"),
        (("--iou", 0.7), "--iou is an option of --collectors boxes or masks"),
        (
            ("--collectors", "embeddings", "--layers", "0", "--probs"),
            "--probs is an option of --collectors classification",
        ),
        (("--mode", "eval"), "have no mode"),
    ],
)
def test_options_that_would_be_ignored_are_refused(place: Path, xai: Any, arguments: Any, told: str) -> None:
    given = ("collect", place / "run", "--model", place / "ckpt.pt", "--data", place / "data.npz", *arguments)
    status, out, err = xai(*given)
    assert (status, out) == (2, "")
    assert told in err
    assert not (place / "run").exists()


def test_kept_texts_of_several_lengths_are_collected_each_as_alone(tmp_path: Path, xai: Any) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(12, 4), nn.Linear(4, 2)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.embedding(tokens).mean(1))
            return found

    torch.manual_seed(0)
    net = Pooled().eval()
    texts = [torch.randint(0, 12, (1, 2 + i % 3)) for i in range(7)]
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        for i, text in enumerate(texts):
            run.log_inputs([i], text, label=[i % 2])
        run.save_checkpoint(net, example_inputs=torch.zeros(2, 3, dtype=torch.long))
    status, _, err = xai("collect", tmp_path / "run", "--model", "ckpt.pt")
    assert status == 0, err
    stored = pl.read_parquet(tmp_path / "run" / "tables" / "metrics" / "*.parquet").sort("sample_id")
    assert stored["sample_id"].to_list() == list(range(7))
    with torch.no_grad():
        losses = [float(functional.cross_entropy(net(text), torch.tensor([i % 2]))) for i, text in enumerate(texts)]
    assert stored["loss"].to_list() == pytest.approx(losses, abs=1e-5)
