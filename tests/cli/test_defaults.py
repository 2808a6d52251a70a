"""A default of one's own costs no answer: it counts where it applies, and is passed over where it does not."""

from __future__ import annotations

import itertools
import json
import shutil
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from tests.cli.test_options import COMMANDS, OPTIONS_OF, WALKS, runs
from xaicli.cli import build

__all__ = ["runs"]

Xai = Callable[..., tuple[int, str, str]]

QUESTIONS: dict[str, tuple[str, ...]] = {
    **COMMANDS,
    "check --rules": ("check", "A", "--rules", "RULES"),
    "compare --group": ("compare", "A", "B", "C", "D", "--group", "one=a,c", "--group", "two=b,d"),
    "errors": ("errors", "E"),
    "watch": ("watch", "A", "--once"),
    "doctor": ("doctor", "A"),
    "compact": ("compact", "A"),
    "relabel export": ("relabel", "export", "A"),
    "relabel apply": ("relabel", "apply", "A", "CORRECTIONS"),
    "saliency": ("saliency", "M", "--methods", "gradient", "--samples", "2"),
    "collect": ("collect", "M", "--mode", "eval", "--ds-id", "x"),
    "import": ("import", "SCALARS", "-o", "NEW"),
    "checkpoint inspect": ("checkpoint", "inspect", "CKPT"),
    "checkpoint convert": ("checkpoint", "convert", "CKPT", "-o", "EXPORTED"),
}
"""Questions, each in a form in which it has an answer, of every command but those here, with the reason."""
UNASKED = {"demo": "it trains for seconds", "sync": "it has no options but those of its output"}
TOGETHER = {"debug", "json", "quiet", "open", "no_images", "no_progress", "strict"}
"""What goes with everything and with one another, and is given at once."""

VALUES: dict[str, tuple[Any, ...]] = {
    "arch": ("ARCH",),
    "arch_args": ("{}",),
    "around": (600,),
    "attempts": ("all",),
    "axis": ("step", "pass"),
    "baseline": ("zero", "B"),
    "batch_size": (8,),
    "bounds": ("range", ["std", "range"]),
    "burn_in": (1,),
    "by": ("camera", ["camera", "label"]),
    "captum": ("Saliency",),
    "cell": ("cat,cow",),
    "collectors": ("classification",),
    "colour": ("kind",),
    "column": ("second", ["first", "second"]),
    "complete_only": (True,),
    "components": (1,),
    "convention": ("fe",),
    "data": ("DATA",),
    "device": ("cpu",),
    "ds_id": ("x", ["x", "y"], "!x"),
    "duplicates": ("all",),
    "early_epochs": (2,),
    "engine": ("polars", "duckdb"),
    "epoch": (1, "last", ["1-2", "4"]),
    "epoch_frequency": (2,),
    "epochs": (1,),
    "evaluate": (True,),
    "evaluations": ("auto", 8),
    "facts": ("FACTS",),
    "field": ("label",),
    "format": ("csv", "parquet", "txt", ["html", "csv"]),
    "grace": (1.0,),
    "group": (["one=a", "two=b"],),
    "ids": ("1,2", [1, 2]),
    "input_dtype": ("float32",),
    "input_shape": ("3",),
    "integrating": ("2", [2, 2]),
    "interval": (1.0,),
    "iou": (0.6,),
    "junit": ("JUNIT",),
    "key": ("momentum", ["lr", "momentum"]),
    "kind": ("csv",),
    "label_key": ("prediction", "camera"),
    "label_map": ("cat=0", {"cat": 0, "cow": 2}),
    "label_names": (["a", "b"],),
    "layers": ("0",),
    "max": (1,),
    "mean": ("0.5", [0.5, 0.5, 0.5]),
    "methods": (["gradient"], "smoothgrad"),
    "metric": ("size", ["loss", "size"], "correct"),
    "min": (1,),
    "min_n": (4,),
    "mode": ("train", "all", "!train", ["train", "eval"]),
    "model": ("ckpt.pt", ["ckpt.pt"]),
    "n": (2,),
    "no_aggregates": (True,),
    "no_facts": (True,),
    "noise": (0.2,),
    "once": (True,),
    "output": ("OUT",),
    "output_key": ("0",),
    "path": ("camera",),
    "per_label": (True,),
    "pick": ("worst",),
    "pictures": (True,),
    "positive": ("yes",),
    "precision": ("fp32", "fp16"),
    "prefix": ("/data/",),
    "probs": (True,),
    "pythonpath": ("HERE",),
    "quarantine": (True,),
    "reduce": ("max",),
    "reduction": ("pca", "none"),
    "reshape": ("flatten",),
    "resize": (["1", "1"],),
    "rule": ("hardest", "loss > 2", "loss mean by camera <= 40", ["size mean <= 40", "loss mean <= 400"]),
    "rules": ("RULES",),
    "run": ("scalars",),
    "samples": (2,),
    "sanity": (True,),
    "seed": (7,),
    "shape": ("wide", "long"),
    "share": (0.5,),
    "signed": (True,),
    "smoothing": (0.5, 2),
    "spark_remote": ("sc://nowhere",),
    "spikes": (0,),
    "split": ("val",),
    "stat": ("mean", "variability", "slope"),
    "std": ("0.5",),
    "step": (400,),
    "strict_drop": (True,),
    "table": ("boxes", "vectors", "named"),
    "target": ("label",),
    "task": ("classification", "boxes"),
    "to": ("csv", "pt2"),
    "tolerance": (0.5,),
    "top": (1,),
    "trust_checkpoint": (True,),
    "truth": ("TRUTH",),
    "until": ("loss mean <= 40",),
    "weight": (2.0,),
    "weights": ("model",),
    "where": ("loss >= 0",),
    "workers": (0,),
}
"""Of each option values that are valid for some command that has it: one of every kind there is."""


@pytest.fixture(scope="module")
def places(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the words of the questions and values stand for."""
    torch = pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("places")
    for name, modes in (("m", ("train", "eval")), ("e", ("train", "eval"))):
        with xaicli.Run(root / name, label_names=["no", "yes"]) as run:
            for epoch, mode in itertools.product((1, 2, 4), modes):
                for ds_id in ("x", "y"):
                    known = {"label": [0, 1, 0, 1], "prediction": [0, 1, 1, 1], "top_prob": [0.9, 0.8, 0.7, 0.6]}
                    values = {"loss": [1.0, 2, 3, 4], "size": [4.0, 3, 2, 1]}
                    if name == "e":
                        known = {"label": [0.5, 1.5, 2.5, 3.5], "prediction": [0.5, 1.0, 2.0, 4.0]}
                    run.log_samples(sample_id=range(4), **known, **values, mode=mode, ds_id=ds_id, epoch=epoch)
            run.log_facts(range(4), camera=["a", "b", "a", "b"])
            for mode, ds_id in itertools.product(modes, ("x", "y") if name == "m" else ()):
                run.state.mode, run.state.ds_id = mode, ds_id
                run.log_inputs(range(4), np.ones((4, 3), np.float32), label=[0, 1, 0, 1])
            if name == "m":
                run.save_checkpoint(
                    torch.nn.Sequential(torch.nn.Linear(3, 2)), "ckpt.pt", example_inputs=torch.zeros(2, 3)
                )
    (root / "corrections.csv").write_text("sample_id,label,by,camera\n1,cat,camera,x\n2,dog,camera,x\n")
    (root / "scalars.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
    (root / "nets.py").write_text("import torch\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Linear(3, 2))\n")
    np.savez(root / "data.npz", x=np.ones((4, 3), np.float32), y=np.array([0, 1, 0, 1]))
    beside = runs[0].parent
    for one, other in (("c", runs[0]), ("d", runs[1])):
        shutil.copytree(other, root / one)
    named = {
        "A": runs[0],
        "B": runs[1],
        "C": root / "c",
        "D": root / "d",
        "E": root / "e",
        "M": root / "m",
        "CORRECTIONS": root / "corrections.csv",
        "SCALARS": root / "scalars.csv",
        "CKPT": root / "m" / "checkpoints" / "ckpt.pt",
        "DATA": root / "data.npz",
        "HERE": root,
        "FACTS": beside / "facts.csv",
        "TRUTH": beside / "truth.csv",
        "RULES": beside / "rules.toml",
    }
    return {name: str(path) for name, path in named.items()} | {"ARCH": "nets:net"}


def toml(value: Any, places: dict[str, str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(toml(one, places) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one, places)}" for key, one in value.items()) + "}"
    return json.dumps(places.get(value, value) if isinstance(value, str) else value)


def batches(alone: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The settings some at once, in each batch every option once."""
    made: list[list[dict[str, Any]]] = []
    for given in alone:
        apart = (batch for batch in made if len(batch) < MOST and not any(given.keys() & one.keys() for one in batch))
        if (batch := next(apart, None)) is None:
            made.append(batch := [])
        batch.append(given)
    return made


MOST = 16
"""So many defaults are given at once."""
NEEDED = {"arch": ("--pythonpath", "HERE"), "arch_args": ("--arch", "ARCH", "--pythonpath", "HERE")}
"""What an option is nothing without."""
COUNTS = {
    ("collect", "data"): "it says where the samples are from, and a mode that is typed is of a run",
    ("errors", "table"): "of a run without tables: a name that is not there",
    ("check", "no_facts"): "facts that nobody wants known are not told for a rule by them",
    ("query", "no_facts"): "nor for a statement that names them",
}
"""Defaults that take an answer away, with the reason."""


def test_every_option_is_given_a_value_and_every_command_asked() -> None:
    assert VALUES.keys() | TOGETHER == set().union(*OPTIONS_OF.values())
    assert OPTIONS_OF.keys() - UNASKED.keys() == {question.partition(" --")[0] for question in QUESTIONS}


FEW = ("samples", "labels", "compare", "check", "saliency", "scalars", "select", "watch")
"""The commands that are asked each time; `make walks` asks all."""


@pytest.mark.parametrize("question", [question for question in QUESTIONS if WALKS or question in FEW])
def test_a_default_costs_no_answer(
    xai: Xai, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    command = question.partition(" --")[0]
    own = OPTIONS_OF[command]
    alone = [
        {option: value}
        for option in sorted(own - TOGETHER)
        for value in VALUES[option]
        if (command, option) not in COUNTS
    ]
    together = [
        {option: VALUES[option][-1] for option in VALUES.keys() - own - build().commands.keys()},
        dict.fromkeys(TOGETHER, True),
    ]
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.chdir(tmp_path)
    number = itertools.count()

    def refused(given: dict[str, Any]) -> str:
        new = {"NEW": f"new{next(number)}", "EXPORTED": f"{next(number)}.pt2", "JUNIT": "verdicts.xml", "OUT": "out"}
        here = places | {name: str(tmp_path / path) for name, path in new.items()}
        lines = [f"{name} = {toml(value, here)}\n" for name, value in given.items()]
        tables = given.keys() & build().commands.keys()  # an option whose name is that of a table
        Path("xai.toml").write_text((f"[{command}]\n" if tables else "") + "".join(lines))
        needed = itertools.chain.from_iterable(NEEDED.get(option, ()) for option in given.keys() & own)
        status, _, err = xai(*(here.get(word, word) for word in (*QUESTIONS[question], *needed)))
        return f"{given}: {err}" if status else ""

    def alone_refused(batch: list[dict[str, Any]]) -> list[str]:
        """Of those that are refused at once, the ones that are by themselves: two may not go with one another."""
        said = refused({name: value for given in batch for name, value in given.items()})
        if not said or len(batch) == 1:
            return [said]
        half = len(batch) // 2
        return alone_refused(batch[:half]) + alone_refused(batch[half:])

    found = [*map(refused, together), *itertools.chain.from_iterable(map(alone_refused, batches(alone)))]
    assert not any(found), "\n".join(filter(None, found))


@pytest.fixture(scope="module")
def with_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with rows of two data sets in epochs 1, 2 and 4, and a table of epochs 1 and 2 without a loss."""
    path = tmp_path_factory.mktemp("with_table") / "run"
    with xaicli.Run(path) as run:
        for epoch, ds_id in itertools.product((1, 2, 4), ("x", "y")):
            run.log_samples(
                sample_id=range(4),
                label=[0, 1, 0, 1],
                prediction=[0, 1, 1, 1],
                loss=[1.0, 2, 3, 4],
                mode="eval",
                ds_id=ds_id,
                epoch=epoch,
            )
        table = {"sample_id": [*range(4)] * 2, "epoch": [1] * 4 + [2] * 4, "split": ["eval"] * 8, "iou": [0.5] * 8}
        run.add_metrics_data(table, name="boxes")
    return path


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        ("epoch = ['1-2', '4']", ("--epoch", "1-2,4")),
        ("epoch = 4", ("--epoch", "4")),
        ("epoch_frequency = 4", ("--epoch-frequency", "4")),
        ("where = 'loss >= 0'", ("--where", "loss >= 0")),
    ],
)
def test_a_default_about_the_rows_is_passed_over_where_a_table_answers(
    xai: Xai, with_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, typed: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    question = ("samples", with_table, "--table", "boxes", "--metric", "iou")
    assert xai(*question, *typed)[0] in (1, 2)
    plain = xai(*question)
    Path("xai.toml").write_text(settings)
    assert (plain[0], xai(*question)) == (0, plain)
    status, _, err = xai("samples", with_table, *typed)
    assert status == 0, err
    for nowhere in ("epoch = 9", "where = 'nosuch > 1'", "epoch_frequency = 9"):
        Path("xai.toml").write_text(nowhere)
        assert xai(*question)[0] in (1, 2)


@pytest.mark.parametrize("settings", ["", "format = 'txt'"])
def test_a_list_of_ids_that_nobody_typed_is_parquet_where_ids_alone_say_too_little(
    xai: Xai, with_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    question = ("select", with_table, "--rule", "hardest", "--n", "2", "-o", tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert xai(*question)[0] == 0
    rows = pl.read_parquet(tmp_path / "out" / "select.parquet")
    assert sorted(rows.select("ds_id", "sample_id").iter_rows()) == [("x", 2), ("x", 3), ("y", 2), ("y", 3)]
    assert not (tmp_path / "out" / "select.txt").exists()
    status, _, err = xai(*question, "--format", "txt")
    assert (status, "of which data set" in err) == (2, True)
    assert xai(*question, "--ds-id", "x")[0] == 0
    assert (tmp_path / "out" / "select.txt").read_text().splitlines() == ["3", "2"]
