"""Every question of a run of each task answers the same whether samples are numbered or named by texts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli

Xai = Callable[..., tuple[int, str, str]]
N, K, EPOCHS = 60, 3, 4
TRUTH = [
    {"boxes": [[0, 0, 10, 10], [20, 20, 30, 30]], "labels": [0, 1]},
    {"boxes": [[5, 5, 15, 15]], "labels": [1]},
] * 2
SAID = [
    {"boxes": [[0, 0, 10, 8]], "labels": [0], "scores": [0.9]},
    {"boxes": [[5, 5, 15, 15], [20, 0, 30, 10]], "labels": [1, 0], "scores": [0.7, 0.95]},
] * 2
QUESTIONS = (
    "info",
    "samples",
    "samples --ids 0003,0001 --facts FILE",
    "labels",
    "labels --label-key camera",
    "dynamics",
    "findings",
    "confusion",
    "confusion --by camera",
    "steps",
    "slices --min-n 2",
    "errors",
    "errors --by camera",
    "select --rule suspects",
    "select --rule hardest --n 5",
    "select --rule balanced --by camera --n 12",
    "relabel export --to csv -o labels.csv",
    "track-report -o page",
    "compare RUN",
    "check --baseline RUN --rule 'loss mean <= 100' --rule 'loss mean by camera drop <= 1'",
    "export -o exported.csv",
    "scalars",
    "doctor",
    "query 'SELECT count(DISTINCT sample_id) AS n FROM samples'",
    "query 'SELECT * FROM facts ORDER BY sample_id'",
)


def outputs(task: str, rng: np.random.Generator, truth: Any, noise: float) -> dict[str, Any]:
    match task:
        case "regression":
            return {"label": truth[:, 0], "prediction": truth[:, 0] + rng.normal(0, noise, N)}
        case "multilabel":
            return {"label": (truth > 0).astype(int), "logits": truth + rng.normal(0, noise, (N, K))}
        case "sequence":
            label = np.abs(np.rint(truth * 2)).astype(int) % K
            logits = 3 * np.eye(K)[label] + rng.normal(0, noise, (N, K, K))
            return {"label": label, "logits": logits, "keep_tokens": True}
        case _:
            k = 2 if task == "binary" else K
            label = truth[:, :k].argmax(1)
            return {"label": label, "logits": truth[:, :k] + rng.normal(0, noise, (N, k))}


def recorded(folder: Path, task: str, ids: list[Any]) -> Path:
    """A run of a task; what stands in it goes by the sample's number, whatever its id is."""
    path, rng = folder / "run", np.random.default_rng(5)
    truth = rng.normal(0, 1, (N, K))
    with xaicli.Run(path, task=None if task == "boxes" else task, label_names=["a", "b", "c"]) as run:
        if task == "boxes":
            collector = xaicli.BoundingBoxMetricsCollector(["a", "b", "c"])
            args = {"batch_size": 4, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
            table = xaicli.Table(list(enumerate(TRUTH)), ids=ids[:4])
            for _ in run.epochs(2):
                model = lambda numbers: [SAID[int(i)] for i in numbers]  # noqa: E731
                xaicli.collect_metrics(table, collector, model, run=run, split="val", dataloader_args=args)
        for epoch in run.epochs(EPOCHS) if task != "boxes" else ():
            for mode in ("train", "eval"):
                for _ in run.steps(range(1), mode=mode):
                    run.log_samples(sample_id=ids, **outputs(task, rng, truth, 2 / epoch))
        run.log({"lr": 0.5})
        run.log_facts(ids, camera=["left", "right"] * (N // 2))
    (folder / "facts.csv").write_text("sample_id,place\n" + "".join(f"{one},{n % 3}\n" for n, one in enumerate(ids)))
    return path


def named(answer: Any, ids: list[Any], key: str = "") -> Any:
    """What of an answer is about samples, their ids as texts."""
    if isinstance(answer, dict):
        return {name: named(value, ids, name) for name, value in answer.items()}
    if isinstance(answer, list):
        return [named(value, ids, key) for value in answer]
    if key in ("sample_id", "sample_ids", "example_id"):
        return f"{answer:04d}" if isinstance(answer, int) else answer
    return answer


@pytest.mark.parametrize("task", ["classification", "binary", "regression", "multilabel", "sequence", "boxes"])
def test_text_ids_answer_as_numbers_do(xai: Xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    kinds = {"numbers": list(range(N)), "texts": [f"{n:04d}" for n in range(N)]}
    runs = {}
    for kind, ids in kinds.items():
        (tmp_path / kind).mkdir()
        runs[kind] = recorded(tmp_path / kind, task, ids)
    answered = set()
    for question in QUESTIONS:
        said = {}
        for kind, path in runs.items():
            monkeypatch.chdir(path.parent)
            words = [{"RUN": "run", "FILE": "facts.csv"}.get(word, word) for word in shlex.split(question)]
            if kind == "numbers":
                words = [word.replace("0003,0001", "3,1") for word in words]
            at = 2 if words[0] == "relabel" else 1
            status, out, err = xai(*words[:at], "run", *words[at:], "--json")
            assert "fault of xai" not in err, (question, err)
            answer = json.loads(out) if out and "rows" in json.loads(out) else {"warnings": [], "rows": err}
            assert not any("failed" in text or "SchemaError" in text for text in answer["warnings"]), (question, answer)
            said[kind] = status, named(answer["rows"], kinds[kind])
        assert said["texts"] == said["numbers"], question
        if said["texts"][0] == 0:
            answered.add(question.split()[0])
    assert {"errors", "findings", "track-report"} - {"errors" if task == "classification" else ""} <= answered
