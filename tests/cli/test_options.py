"""An option that a command accepts, it honours: the answer changes, or the option is refused by its name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli
from xaicli.cli import build

Xai = Callable[..., tuple[int, str, str]]
Answers = dict[tuple[str, ...], tuple[Any, str]]
N = 24


@pytest.fixture(scope="module")
def plain_answers() -> Answers:
    """What was answered without an option, once for all options that are held against it."""
    return {}


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
                for step in (1, 2):
                    run.log({"step": 2 * attempt + step, "lr": 0.5 / step, "momentum": 0.9})
        with xaicli.Run(root / name, resume="allow") as run:
            run.log_facts(range(N), camera=[("left", "right")[i % 2] for i in range(N)])
            run.add_metrics_data({"sample_id": range(N), "place": np.ones((N, 2), np.float32)}, name="named")
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
                    run.add_metrics_data(
                        {
                            "example_id": list(range(N)),
                            "first": np.arange(3 * N, dtype=np.float32).reshape(N, 3) ** (epoch + len(split) % 4),
                            "second": np.arange(3 * N, dtype=np.float32).reshape(N, 3) ** 0.5,
                            "kind": [i % 2 for i in range(N)],
                            "loss": [i / (epoch + len(split)) for i in range(N)],
                            "epoch": [epoch] * N,
                            "split": [split] * N,
                        },
                        name="vectors",
                    )
    rows = [f"{i},{('top', 'side')[i // 12]}" for i in range(N)]
    (root / "facts.csv").write_text("\n".join(["sample_id,camera", *rows]))
    (root / "truth.csv").write_text("\n".join(["sample_id,mislabelled", *(f"{i},{i % 5 == 0:d}" for i in range(N))]))
    (root / "rules.toml").write_text('[[rule]]\nmetric = "size"\nleast = 1.0\n')
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
            wear=[i % 2 * 3 + place / N + (len(ds_id) + len(mode)) / 8 for i, place in enumerate(order)],
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
    "confusion": ("confusion", "A"),
    "confusion --cell": ("confusion", "A", "--cell", "cat,cow"),
    "steps": ("steps", "A"),
    "steps --step": ("steps", "A", "--step", "500"),
    "slices": ("slices", "A", "--min-n", "4", "--metric", "wear"),
    "select": ("select", "A", "--rule", "hardest", "--n", "4"),
    "check": ("check", "A", "--rule", "loss mean by camera <= 40"),
    "scalars": ("scalars", "A"),
    "embeddings": ("embeddings", "A", "--table", "vectors"),
    "info": ("info", "A"),
    "ls": ("ls", "A"),
    "query": ("query", "A", "SELECT max(camera) AS camera, count(*) AS n FROM samples JOIN facts USING (sample_id)"),
    "export": ("export", "A"),
    "compare": ("compare", "A", "B"),
}
"""Questions, each in a form in which it has an answer."""
ELSEWHERE = {
    "demo": "tests/cli/test_frame.py",
    "saliency": "tests/attribution",
    "collect": "tests/collectors",
    "checkpoint inspect": "tests/checkpoint",
    "checkpoint convert": "tests/checkpoint",
    "compact": "tests/maintenance",
    "doctor": "tests/maintenance",
    "sync": "tests/store",
    "watch": "tests/watch",
    "import": "tests/importers",
    "errors": "tests/diagnosis",
    "relabel export": "tests/relabel",
    "relabel apply": "tests/relabel",
}
"""Commands that ask nothing of the rows, or cost too much to ask so often: where their options are tested."""
OUTPUT = {"output", "format", "json", "quiet", "open", "no_images", "no_progress", "debug", "junit"}
"""Where an answer goes and how; `test_answer_first.py` and `test_frame.py` are about these."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "metric": ("--metric", "size"),
    "metric correct": ("--metric", "correct"),
    "mode": ("--mode", "train"),
    "ds_id": ("--ds-id", "!x"),
    "epoch": ("--epoch", "1-2"),
    "epoch_frequency": ("--epoch-frequency", "2"),
    "label_key": ("--label-key", "prediction"),
    "label_map": ("--label-map", "dog=1"),
    "where": ("--where", "label = 2"),
    "facts": ("--facts", "FACTS"),
    "no_facts": ("--no-facts",),
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
    "truth": ("--truth", "TRUTH"),
    "table": ("--table", "boxes", "--metric", "iou"),
    "reduce": ("--reduce", "max"),
    "shape": ("--shape", "wide"),
    "attempts": ("--attempts", "all"),
    "cell": ("--cell", "cat,cow"),
    "by": ("--by", "camera"),
    "step": ("--step", "400"),
    "around": ("--around", "600"),
    "spikes": ("--spikes", "0"),
    "min_n": ("--min-n", "13"),
    "rule": ("--rule", "random"),
    "rules": ("--rules", "RULES"),
    "baseline": ("--baseline", "B"),
    "strict_drop": ("--strict-drop",),
    "n": ("--n", "2"),
    "share": ("--share", "0.5"),
    "per_label": ("--per-label",),
    "weight": ("--weight", "2"),
    "seed": ("--seed", "7"),
    "column": ("--column", "second"),
    "colour": ("--colour", "kind"),
    "split": ("--split", "val"),
    "key": ("--key", "momentum"),
    "smoothing": ("--smoothing", "0.5"),
    "group": ("--group", "both=a"),
}


OF_THE_PAGE = {
    *(("track-report", "bounds"), ("findings", "early_epochs"), ("findings", "burn_in")),
    *(("samples --table", "attempts"), ("track-report", "attempts"), ("steps", "spikes")),
    ("confusion --cell", "label_map"),
}
"""What changes a picture or a reason more than the rows of these small runs; the selection says it."""
IN_OTHER_WORDS = {
    ("samples --table", "metric"): (("--metric", "area"), ()),
    ("samples --table", "table"): (("--table", "vectors", "--metric", "loss"), ()),
    ("samples --table", "epoch"): (("--epoch", "1"), ()),
    ("compare", "epoch_frequency"): (("--epoch-frequency", "4"), ()),
    ("export", "label_key"): (("--label-key", "prediction"), ("--shape", "wide")),
    **{
        (question, option): (OPTIONS[option], ("--where", "camera = 'left' OR camera = 'top' AND label = 1"))
        for question in ("samples --table", "labels", "confusion", "compare")
        for option in ("facts", "no_facts")
    },
    ("confusion --cell", "attempts"): (("--attempts", "all"), ("--epoch", "4")),
    ("confusion --cell", "cell"): (("--cell", "dog,cow"), ()),
    ("confusion --cell", "label_map"): (("--label-map", "cat=0,cow=2"), ()),
    ("confusion --cell", "where"): (("--where", "size > 2"), ()),
    ("steps", "mode"): (("--mode", "eval"), ()),
    ("steps --step", "mode"): (("--mode", "eval"), ()),
    ("steps --step", "epoch"): (("--epoch", "6"), ()),
    ("steps --step", "step"): (("--step", "600"), ()),
    ("slices", "attempts"): (("--attempts", "all"), ("--epoch", "4")),
    ("slices", "duplicates"): (("--duplicates", "error"), ("--epoch", "1-2")),
    ("slices", "epoch_frequency"): (("--epoch-frequency", "4"), ()),
    ("select", "attempts"): (("--attempts", "all"), ("--epoch", "4")),
    ("select", "by"): (("--by", "camera"), ("--rule", "balanced")),
    ("select", "facts"): (("--facts", "FACTS"), ("--rule", "balanced", "--by", "camera")),
    ("select", "column"): (
        ("--column", "first"),
        ("--mode", "train", "--rule", "diverse", "--table", "vectors", "--column", "second"),
    ),
    ("select", "split"): (
        ("--split", "val"),
        ("--mode", "train", "--rule", "diverse", "--table", "vectors", "--column", "first"),
    ),
    ("select", "table"): (("--table", "nosuch"), ("--rule", "diverse")),
    ("select", "seed"): (("--seed", "7"), ("--rule", "random")),
    ("select", "where"): (("--where", "label_name = 'cow'"), ()),
    ("select", "epoch_frequency"): (("--epoch-frequency", "4"), ()),
    ("select", "duplicates"): (("--duplicates", "error"), ("--epoch", "1-2")),
    ("select", "complete_only"): (("--complete-only",), ("--n", "24")),
    ("embeddings", "table"): (("--table", "boxes"), ()),
    **{("embeddings", option): (OPTIONS[option], ("--table", "named")) for option in ("facts", "no_facts")},
    ("check", "rule"): (("--rule", "size mean <= 1"), ()),
    ("check", "baseline"): (("--baseline", "B"), ("--rule", "loss mean drop <= 0.1")),
    ("check", "strict_drop"): (("--strict-drop",), ("--rule", "loss mean drop <= 0.001", "--baseline", "B")),
}
"""Where those words would change nothing: others, and what is asked beside them with and without."""


OPTIONS_OF: dict[str, set[str]] = {
    f"{name} {below}".strip(): {one.name for one in command.params if one.param_type_name == "option"}
    for name, group in build().commands.items()
    for below, command in getattr(group, "commands", {"": group}).items()
}
"""Every command with its options, as the command line itself lists them."""


def walked() -> list[tuple[str, str]]:
    """Every question with every option its command has."""
    asked = {words[0] for words in COMMANDS.values()}
    assert OPTIONS_OF.keys() - ELSEWHERE.keys() == asked, "each command is asked here, or named in ELSEWHERE"
    found = []
    for question, words in COMMANDS.items():
        options = sorted(OPTIONS_OF[words[0]] - OUTPUT - {"strict"})
        found += [(question, option) for option in [*options, *(["metric correct"] if "metric" in options else [])]]
    return found


NAMES_FILES = {"facts", "truth", "rules", "model", "data", "weights", "baseline", "source", "file", "words", "ids"}
"""What names a file that a command reads."""
WRITES = {"output", "junit", "target"}
NO_FILE = {"arch", "captum", "pythonpath", "runs", "run_dir", "folder"}
"""What is a class, a folder of code, a run or a folder of runs."""
WALKS = "XAI_TEST_WALKS" in os.environ
"""Whether every command is asked in every way; `make walks` does it, which takes minutes."""
OF_FILES = sorted(
    (question, name)
    for question, words in COMMANDS.items()
    for name in sorted(OPTIONS_OF[words[0]] & NAMES_FILES)[: None if WALKS else 1]
)


def test_every_option_that_names_a_file_is_known_as_one() -> None:
    for name, group in build().commands.items():
        for command in getattr(group, "commands", {"": group}).values():
            for one in command.params:
                said = f"{getattr(one, 'metavar', '') or ''} {getattr(one, 'help', '') or ''}"
                is_place = "FILE" in said or "Path" in str(getattr(one, "type", ""))
                assert not is_place or one.name in NAMES_FILES | WRITES | NO_FILE, (name, one.name)


@pytest.mark.parametrize(("question", "option"), OF_FILES)
def test_no_file_is_replaced_that_the_same_command_reads(
    xai: Xai, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, option: str
) -> None:
    """Every file that an answer is written to, by its whole name or in a folder, was filled in by somebody before."""
    monkeypatch.chdir(tmp_path)
    words = [{"A": str(runs[0]), "B": str(runs[1])}.get(word, word) for word in COMMANDS[question]]
    written = ["--format", "csv", "-o", "out"]
    status, said, err = xai(*words, "--json", *written)
    assert status == 0, err
    for path in map(Path, json.loads(said)["outputs"]):
        text = "sample_id,camera,mislabelled\n7,left,1\n8,right,0\n"
        path.write_text(text)
        named = [f"--{option}", f"@{path}" if option == "ids" else str(path)]
        status, _, err = xai(*words, *named, *written)
        assert status in (1, 2)
        assert path.read_text() == text
        if option in ("rules", "baseline") or "say example_id" in err:  # a list is none of these
            continue
        assert "is read by the same command, and would be replaced" in err
        if option == "facts":
            monkeypatch.setenv("XAI_FACTS", str(path))
            status, _, err = xai(*words, *written)
            monkeypatch.delenv("XAI_FACTS")
            assert status == 2
            assert "is read by the same command, and would be replaced" in err
            assert path.read_text() == text


def answer(xai: Xai, runs: tuple[Path, Path], out: Path, *words: str) -> tuple[int, Any, str]:
    root = runs[0].parent
    files = {"FACTS": "facts.csv", "RULES": "rules.toml", "TRUTH": "truth.csv"}
    places = {"A": runs[0], "B": runs[1], **{word: root / name for word, name in files.items()}}
    named = [str(places.get(word, word)) for word in words]
    written = () if words[0] == "export" else ("--format", "csv")
    status, said, err = xai(*named, "--json", "-o", out, *written)
    if status and not said.startswith("{"):
        return status, None, err
    found = json.loads(said)
    found.pop("outputs")
    if words[0] == "export":
        found["rows"] = sorted((out / "export.csv").read_text().splitlines())
    return 0, found, err


@pytest.mark.parametrize(("question", "option"), walked())
def test_an_option_counts_or_is_refused(
    xai: Xai,
    runs: tuple[Path, Path],
    plain_answers: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    question: str,
    option: str,
) -> None:
    typed, beside = IN_OTHER_WORDS.get((question, option), (OPTIONS[option], ()))
    plain_words = (*without(COMMANDS[question], beside), *beside)
    status, found, err = answer(xai, runs, tmp_path / "with", *without(plain_words, typed), *typed)
    if status:
        flag = typed[0].strip("-")
        assert status in (1, 2)
        assert err.startswith("error: ")
        assert "hint: " in err
        assert (
            flag in err or flag.replace("-", "_") in err or typed[-1] in err or option in ("duplicates", "no_facts")
        ), err
        assert "fault of xai" not in err
        # Facts that nobody wants known are not told for a question in which they stand.
        counts = option == "table" or (question, option) == ("query", "no_facts")
        if status == 2 and plain_words == COMMANDS[question] and not counts:
            is_passed_over(xai, runs, tmp_path, monkeypatch, question, typed)
        return
    if plain_words not in plain_answers:
        plain_answers[plain_words] = answer(xai, runs, tmp_path / "without", *plain_words)[1:]
    plain, refused = plain_answers[plain_words]
    assert plain is not None, refused
    if (question, option) in OF_THE_PAGE or option in ("engine", "axis"):
        assert found["selection"] != plain["selection"]
    else:
        told = [{key: value for key, value in one.items() if key not in SAID} for one in (found, plain)]
        assert told[0] != told[1], f"{question} {' '.join(typed)} changes nothing"


def is_passed_over(
    xai: Xai,
    runs: tuple[Path, Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    question: str,
    typed: tuple[str, ...],
) -> None:
    """What a question has no use for costs no answer where it is a default, which others have a use for."""
    said = str({"FACTS": runs[0].parent / "facts.csv"}.get(typed[-1], typed[-1])) if len(typed) > 1 else "1"
    with monkeypatch.context() as patch:
        patch.setenv("XAI_" + typed[0].strip("-").replace("-", "_").upper(), said)
        status, found, err = answer(xai, runs, out / "default", *COMMANDS[question])
    assert (status, found is not None) == (0, True), err


@pytest.mark.parametrize(
    ("question", "typed"),
    [
        ("samples --table", ("--stat", "variability")),
        ("samples --table", ("--duplicates", "all")),
        ("samples --table", ("--axis", "pass")),
        ("embeddings", ("--epoch", "last")),
        ("embeddings", ("--epoch", "1-2")),
        ("confusion", ("--label-key", "camera")),
        ("confusion --cell", ("--label-key", "camera")),
        ("steps", ("--metric", "correct")),
    ],
)
def test_a_default_that_other_commands_take_is_passed_over(
    xai: Xai,
    runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    question: str,
    typed: tuple[str, str],
) -> None:
    status, _, err = answer(xai, runs, tmp_path, *COMMANDS[question], *typed)
    assert status == 2, err
    is_passed_over(xai, runs, tmp_path, monkeypatch, question, typed)


@pytest.fixture(scope="module")
def damaged(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same runs; of the first, a part, the scalars, the pictures and a table have lost their last bytes."""
    root = tmp_path_factory.mktemp("damaged")
    for run in runs:
        shutil.copytree(run, root / run.name, ignore=shutil.ignore_patterns("reports", "cache"))
    shutil.copy(runs[0].parent / "rules.toml", root)
    for folder in ("data/mode=eval/ds=x/epoch=6", "data/mode=train/ds=_/epoch=6", "scalars", "tables/vectors"):
        path = min((root / "a" / folder).glob("*.parquet"))
        path.write_bytes(path.read_bytes()[:-9])
    return root / "a", root / "b"


STRICT = sorted({question for question, _ in walked() if "strict" in OPTIONS_OF[COMMANDS[question][0]]})


@pytest.mark.parametrize("question", STRICT)
def test_what_is_damaged_is_named_and_counted_or_fails(
    xai: Xai, damaged: tuple[Path, Path], tmp_path: Path, question: str
) -> None:
    words = {"samples --table": (*COMMANDS["samples --table"][:3], "vectors", "--metric", "loss")}.get(
        question, COMMANDS[question]
    )
    status, found, err = answer(xai, damaged, tmp_path, *words)
    assert (status, "fault of xai" in err) == (0, False), err
    assert found["counts"]["damaged"]
    status, found, err = answer(xai, damaged, tmp_path, *words, "--strict")
    assert (status, found) == (1, None)
    assert any(f"{name} is damaged" in err for name in damaged_files(damaged[0])), err


def damaged_files(run: Path) -> list[str]:
    return [path.relative_to(run).as_posix() for path in run.rglob("*.parquet") if path.read_bytes()[-4:] != b"PAR1"]


SAID = {"selection", "warnings"}
"""What says how an answer was asked for, and is none itself."""


def without(words: tuple[str, ...], typed: tuple[str, ...]) -> tuple[str, ...]:
    """A question without the options, of one value each, that are typed anew."""
    again = {at for at, word in enumerate(words) if word.startswith("--") and word in typed}
    return tuple(word for at, word in enumerate(words) if at not in again and at - 1 not in again)


def _every_command(command: Any, path: tuple[str, ...] = ()) -> Any:
    below = getattr(command, "commands", {})
    for name, one in below.items():
        yield from _every_command(one, (*path, name))
    if not below:
        yield path, command


def test_an_option_of_one_value_takes_no_second(xai: Xai) -> None:
    """Whichever of two conditions counts, an answer that leaves out the other is not what was asked."""
    asked = [
        (path, option)
        for path, command in _every_command(build())
        for option in command.params
        if option.opts[0].startswith("-") and not (option.multiple or option.is_flag)
    ]
    assert len({path for path, _ in asked}) > 20
    told = {}
    for path, option in asked:
        if option.name in ("where", "output", "label_key", "n"):
            told[path, option.name] = xai(*path, option.opts[0], "1", "x", option.opts[-1], "2")
    assert {("samples", "where"), ("relabel", "export", "n")} <= {(*path, name) for path, name in told}
    hints = {"where": "join the conditions with AND or OR"}
    for (path, name), (status, _, said) in told.items():
        assert status == 2, path
        assert f"--{name.replace('_', '-')} is given 2 times, and takes one value" in said
        assert f"hint: {hints.get(name, 'leave out all but one')}" in said
