"""An option of `xai relabel` or `xai watch` counts: what is written or said changes, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xaicli
from xaicli.cli import build

N = 24
OUTPUT = {"output", "format", "json", "quiet", "open", "no_images", "no_progress", "debug"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with modes, data sets, epochs, duplicates, attempts, facts, thumbnails and corrections."""
    import numpy as np

    root = tmp_path_factory.mktemp("walk")
    for attempt, epochs in enumerate((range(1, 5), range(4, 7))):
        with xaicli.Run(root / "run", label_names=["cat", "dog", "cow"], keep_probs=True, resume="allow") as run:
            if attempt == 0:
                run.log_facts(range(N), path=[f"a/{i}.png" for i in range(N)], other=[f"b/z{i}.png" for i in range(N)])
                run.log_images(range(N), np.zeros((N, 4, 4, 3), np.uint8))
            for epoch in epochs:
                for mode, ds_id in (("train", ""), ("eval", "x"), ("eval", "y")):
                    for repeat in range(2 if epoch == 2 else 1):
                        order = [
                            (7 * i + 5 * epoch + len(mode) + 3 * len(ds_id) * (ds_id == "y")) % N for i in range(N)
                        ]
                        p = [(1 + place) / (N + 4) for place in order]
                        run.log_samples(
                            sample_id=range(N + (attempt == 0 and epoch == 4)),
                            label=[i % 3 for i in range(N + (attempt == 0 and epoch == 4))],
                            probs=[[x, 0.05, 0.95 - x] for x in [*p, 0.5][: N + (attempt == 0 and epoch == 4)]],
                            loss=[place + repeat / 3 for place in [*order, 99][: N + (attempt == 0 and epoch == 4)]],
                            size=[float(place % 5) for place in [*order, 9][: N + (attempt == 0 and epoch == 4)]],
                            mode=mode,
                            ds_id=ds_id,
                            epoch=epoch,
                            step=100 * epoch + repeat,
                        )
    (root / "facts.csv").write_text("\n".join(["sample_id,path", *(f"{i},c/{i}.png" for i in range(N))]))
    rows = [
        *(f"{i},cow,ann,cat" for i in range(6)),
        *(f"{i},horse,bob,dog" for i in range(6, 8)),
        "c/9.png,cow,ann,cat",
    ]
    (root / "said.csv").write_text("\n".join(["sample_id,label,by,mood", *rows[:-1]]))
    (root / "pictures.csv").write_text("path,label\nb/z3.png,cow\nc/4.png,cow\n")
    return root / "run"


EXPORT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "to": (("--to", "csv"), ()),
    "rule": (("--rule", "easy"), ("--n", "3")),
    "n": (("--n", "2"), ()),
    "share": (("--share", "0.2"), ()),
    "per_label": (("--per-label",), ("--n", "2")),
    "seed": (("--seed", "3"), ("--rule", "random", "--n", "5")),
    "ids": (("--ids", "1,2"), ()),
    "path": (("--path", "other"), ("--rule", "hardest", "--n", "3")),
    "prefix": (("--prefix", "/files/"), ("--rule", "hardest", "--n", "3")),
    "pictures": (("--pictures",), ("--no-facts", "--rule", "hardest", "--n", "3")),
    "facts": (("--facts", "FACTS"), ("--rule", "hardest", "--n", "3")),
    "no_facts": (("--no-facts",), ("--rule", "hardest", "--n", "3")),
    "metric": (("--metric", "size"), ("--rule", "hardest", "--n", "3")),
    "mode": (("--mode", "train"), ()),
    "ds_id": (("--ds-id", "!x"), ()),
    "epoch": (("--epoch", "1-2"), ("--rule", "hardest", "--n", "3")),
    "epoch_frequency": (("--epoch-frequency", "4"), ("--rule", "hardest", "--n", "3")),
    "label_key": (("--label-key", "prediction"), ("--rule", "hardest", "--n", "3")),
    "label_map": (("--label-map", "dog=1"), ("--rule", "hardest", "--n", "3")),
    "duplicates": (("--duplicates", "error"), ("--epoch", "1-2")),
    "where": (("--where", "label = 2"), ("--rule", "hardest", "--n", "3")),
    "attempts": (("--attempts", "all"), ("--epoch", "4", "--rule", "hardest", "--n", "3")),
    "strict": (("--strict",), ()),
    "table": (("--table", "boxes"), ()),  # there is none: objects are in test_boxes.py
}
APPLY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mode": (("--mode", "eval"), ()),
    "ds_id": (("--ds-id", "y"), ("--mode", "eval")),
    "label_key": (("--label-key", "prediction"), ("--mode", "train")),
    "label_map": (("--label-map", "horse=7"), ("--mode", "train")),
    "field": (("--field", "mood"), ("--mode", "train")),
    "by": (("--by", "bob"), ("--label-map", "horse=7", "--mode", "train")),
    "path": (("--path", "other"), ("PICTURES", "--mode", "train")),
    "facts": (("--facts", "FACTS"), ("PICTURES", "--mode", "train")),
    "no_facts": (("--no-facts",), ("--mode", "train")),
    "strict": (("--strict",), ()),
    "table": (("--table", "boxes"), ()),  # there is none: boxes are in test_drawn.py
}
WATCH: dict[str, tuple[str, ...]] = {
    "metric": ("--metric", "size"),
    "mode": ("--mode", "train"),
    "ds_id": ("--ds-id", "!x"),
    "top": ("--top", "1"),
}
IN_TESTS_OF_ITS_OWN = {"interval", "until", "once", "json", "debug"}


def options_of(*names: str) -> set[str]:
    command = build().commands[names[0]]
    for name in names[1:]:
        command = command.commands[name]
    return {one.name for one in command.params if one.param_type_name == "option"}


def test_every_option_is_walked() -> None:
    assert options_of("relabel", "export") - OUTPUT == EXPORT.keys()
    assert options_of("relabel", "apply") - OUTPUT == APPLY.keys()
    assert options_of("watch") - IN_TESTS_OF_ITS_OWN == WATCH.keys()


def filled(run: Path, words: tuple[str, ...]) -> list[str]:
    names = {"FACTS": "facts.csv", "PICTURES": "pictures.csv"}
    return [str(run.parent / names[word]) if word in names else word for word in words]


def asked(xai: Any, out: Path, *words: object) -> tuple[Any, str]:
    """What is said and written; None where it is refused."""
    status, said, err = xai(*words, "--json", "-o", out)
    if status:
        return None, err
    found = json.loads(said)
    files = {Path(path).name: Path(path).read_bytes() for path in found.pop("outputs")}
    found.pop("selection")
    return (found, files), err


@pytest.mark.parametrize("option", EXPORT)
def test_an_option_of_export_counts_or_is_refused(xai: Any, run: Path, tmp_path: Path, option: str) -> None:
    typed, beside = EXPORT[option]
    where = tmp_path / ("x" if option == "to" else "x.json")
    before, err = asked(xai, where, "relabel", "export", run, *filled(run, beside))
    assert before is not None, err
    after, err = asked(xai, where, "relabel", "export", run, *filled(run, beside), *filled(run, typed))
    if option == "strict":
        assert after == before  # nothing is damaged
    elif after is None:
        assert option in ("duplicates", "table")
        assert "error: " in err
    else:
        assert after != before, f"{option} changes nothing"


@pytest.mark.parametrize("option", APPLY)
def test_an_option_of_apply_counts_or_is_refused(xai: Any, run: Path, tmp_path: Path, option: str) -> None:
    typed, beside = APPLY[option]
    file = [] if "PICTURES" in beside else [run.parent / "said.csv"]
    asking = ("relabel", "apply", run, *file, *filled(run, beside))
    before, _ = asked(xai, tmp_path / "x.csv", *asking)
    after, err = asked(xai, tmp_path / "x.csv", *asking, *filled(run, typed))
    if option == "strict":
        assert after == before
    else:
        assert after != before, f"{option} changes nothing: {err}"


@pytest.mark.parametrize("option", WATCH)
def test_an_option_of_watch_counts(xai: Any, run: Path, option: str) -> None:
    _, before, _ = xai("watch", run, "--once", "--json")
    status, after, err = xai("watch", run, "--once", "--json", *WATCH[option])
    assert status == 0, err
    told = [{k: v for k, v in json.loads(one).items() if k != "selection"} for one in (before, after)]
    assert told[0] != told[1]
