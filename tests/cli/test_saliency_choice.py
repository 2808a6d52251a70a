"""Which samples and checkpoints `xai saliency` takes, and how a value is told from a class."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xaicli import Run
from xaicli.api.opening import find_place

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
    assert how == {"pick": "worst", "metric": "loss", "mode": ["train", "eval"]}
    assert "the worst are picked among the 8 samples whose inputs the run kept: --data picks among others" in said
    assert "the worst by loss of mode train and eval" in (tmp_path / "saliency.html").read_text()
    # Of one and the same command, the worst 8 of 8 are all, the first 8 too.
    assert _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "8")[0] == [3, 103, 2, 102, 1, 101, 0, 100]
    assert _picked(xai, run, tmp_path, "--pick", "best", "--samples", "3")[0] == [100, 0, 101]
    ids, how, said = _picked(xai, run, tmp_path, "--pick", "worst", "--samples", "3", "--mode", "eval")
    assert (ids, how) == ([103, 102, 101], {"pick": "worst", "metric": "loss", "mode": ["eval"]})
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
