"""Arguments as people hand them over in Python: numbers of numpy, lists of runs, the data set without a name, and what
is none of these refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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
