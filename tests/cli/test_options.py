"""An option that a command accepts, it honours: the answer changes, or the option is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xaicli

Xai = Callable[..., tuple[int, str, str]]
N = 24


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs in which every option has something to bite on: modes, data sets, epochs, duplicates, attempts."""
    root = tmp_path_factory.mktemp("options")
    for name, sign in (("a", 1), ("b", -1)):
        for attempt, epochs in enumerate((range(1, 5), range(4, 7))):
            with xaicli.Run(root / name, label_names=["cat", "dog", "cow"], keep_probs=True, resume="allow") as run:
                for epoch in epochs:
                    # The last sample is in the epoch that was taken back, and in no other.
                    n = N + 1 if (attempt, epoch) == (0, 4) else N - 1 if epoch == 6 else N
                    for mode, ds_id in (("train", ""), ("eval", "x"), ("eval", "y")):
                        log(run, epoch, mode, ds_id, sign, n)
                run.log({"step": attempt + 1, "lr": 0.5, "momentum": 0.9})
        with xaicli.Run(root / name, resume="allow") as run:
            for split in ("train", "val"):
                for epoch in (1, 2):
                    n = 2 * (N if epoch == 1 else N - 1)
                    run.add_metrics_data(
                        {
                            "example_id": [i // 2 for i in range(n)],
                            "iou": [(5 * i + epoch) % 17 / 8 + epoch + 5 * (i == 2 * N - 1) for i in range(n)],
                            "area": [(3 * i + epoch) % 13 / 4 for i in range(n)],
                            "epoch": [epoch] * n,
                            "split": [split] * n,
                            "label": [i // 2 % 3 for i in range(n)],
                        },
                        name="boxes",
                    )
    return root / "a", root / "b"


def log(run: xaicli.Run, epoch: int, mode: str, ds_id: str, sign: int, n: int) -> None:
    """Values that order the samples anew in every place; the second epoch twice."""
    for repeat in range(2 if epoch == 2 else 1):
        order = [(sign * (7 * i + 5 * epoch) + len(mode) + 3 * len(ds_id)) % N + (ds_id == "y") for i in range(n)]
        first = [(1 + place) / (N + 4) for place in order]
        run.log_samples(
            sample_id=range(n),
            label=[i % 3 for i in range(n)],
            probs=[[p, 0.05, 0.95 - p] for p in first],
            loss=[place * place / 7 + repeat / 3 + (i == N) * (2000 + sign * 900) for i, place in enumerate(order)],
            size=[float(place % 5) for place in order],
            mode=mode,
            ds_id=ds_id,
            epoch=epoch,
            step=100 * epoch + repeat,
        )


COMMANDS: dict[str, tuple[str, ...]] = {
    "samples": ("samples", "A"),
    "samples --table": ("samples", "A", "--table", "boxes", "--metric", "iou"),
    "labels": ("labels", "A"),
    "dynamics": ("dynamics", "A"),
    "findings": ("findings", "A"),
    "track-report": ("track-report", "A"),
    "export": ("export", "A"),
    "compare": ("compare", "A", "B"),
    "select": ("select", "A", "--rule", "hardest", "--n", "24"),
}
SELECTION: dict[str, tuple[str, ...]] = {
    "metric": ("--metric", "size"),
    "metric correct": ("--metric", "correct"),
    "mode": ("--mode", "train"),
    "ds_id": ("--ds-id", "!x"),
    "epoch": ("--epoch", "1-2"),
    "epoch_frequency": ("--epoch-frequency", "2"),
    "label_key": ("--label-key", "prediction"),
    "label_map": ("--label-map", "dog=1"),
    "where": ("--where", "label = 2"),
    "duplicates": ("--duplicates", "error"),
    "engine": ("--engine", "duckdb"),
    "spark_remote": ("--spark-remote", "sc://nowhere"),
    "max": ("--max", "1"),
    "min": ("--min", "1"),
    "ids": ("--ids", "7,8"),
    "stat": ("--stat", "mean"),
    "complete_only": ("--complete-only",),
    "top": ("--top", "1"),
    "bounds": ("--bounds", "range"),
    "axis": ("--axis", "step"),
    "early_epochs": ("--early-epochs", "2"),
    "burn_in": ("--burn-in", "4"),
    "table": ("--table", "boxes", "--metric", "iou"),
    "reduce": ("--reduce", "max"),
    "shape": ("--shape", "wide"),
    "attempts": ("--attempts", "all"),
    "n": ("--n", "3"),
    "share": ("--share", "0.5"),
    "per_label": ("--per-label",),
    "weight": ("--weight", "0"),
    "by": ("--by", "label"),
    "seed": ("--rule", "random", "--seed", "3"),
    "rule": ("--rule", "easy"),
    "column": ("--rule", "diverse", "--table", "boxes", "--column", "iou"),
}


OF_THE_PAGE = {
    *(("track-report", "bounds"), ("findings", "early_epochs"), ("findings", "burn_in")),
    *(("samples --table", "attempts"), ("track-report", "attempts")),
}
"""What changes a picture or a reason more than the rows of these small runs; the selection says it."""
IN_OTHER_WORDS = {
    ("samples --table", "metric"): ("--metric", "area"),
    ("samples --table", "epoch"): ("--epoch", "1"),
    ("compare", "epoch_frequency"): ("--epoch-frequency", "4"),
    ("export", "label_key"): ("--label-key", "prediction", "--shape", "wide"),
}


def answer(xai: Xai, runs: tuple[Path, Path], out: Path, *words: str) -> tuple[int, Any, str]:
    named = [str({"A": runs[0], "B": runs[1]}.get(word, word)) for word in words]
    status, said, err = xai(*named, "--json", "-o", out, *([] if words[0] == "export" else ["--format", "csv"]))
    if status:
        return status, None, err
    found = json.loads(said)
    found.pop("outputs")
    if words[0] == "export":
        found["rows"] = sorted((out / "export.csv").read_text().splitlines())
    return status, found, err


@pytest.mark.parametrize("option", SELECTION)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_counts_or_is_refused(
    xai: Xai, runs: tuple[Path, Path], tmp_path: Path, command: str, option: str
) -> None:
    words = COMMANDS[command]
    if option.startswith("metric"):
        words = tuple(word for word in words if word not in ("--metric", "iou"))
    typed = IN_OTHER_WORDS.get((command, option), SELECTION[option])
    if option == "table" and "boxes" in words:
        pytest.skip("it is the table already")
    status, found, err = answer(xai, runs, tmp_path / "with", *words, *typed)
    if status:
        flag = typed[0].strip("-")
        assert status in (1, 2)
        assert err.startswith("error: ")
        assert "hint: " in err
        assert flag in err or flag.replace("-", "_") in err or typed[-1] in err or option == "duplicates"
        assert "fault of xai" not in err
        return
    shaped = ("--shape", "wide") if "--shape" in typed and option != "shape" else ()
    _, plain, _ = answer(xai, runs, tmp_path / "without", *COMMANDS[command], *shaped)
    if (command, option) in OF_THE_PAGE or option in ("engine", "axis"):
        assert found["selection"] != plain["selection"]
    else:
        assert found["rows"] != plain["rows"], f"{command} {' '.join(typed)} changes nothing"
