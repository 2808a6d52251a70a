"""Texts that a run kept: of several lengths in one call, and shown as words without their tokenizer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import xaicli
from tests.conftest import Xai
from xaicli.diagnosis.slicing import kept_inputs
from xaicli.errors import XaiError

LENGTHS = (5, 3, 5, 8)
VOCABULARY = {0: "[PAD]", **{i: f"word{i}" for i in range(1, 20)}}


class Texts(torch.nn.Module):
    """Two classes of the mean of embedded tokens that count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = torch.nn.Embedding(20, 6), torch.nn.Linear(6, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        counts = attention_mask[..., None].float()
        mean = (torch.tanh(self.table(input_ids)) * counts).sum(1) / counts.sum(1)
        return self.out(torch.sin(3 * mean))  # type: ignore[no-any-return]


def recorded(folder: Path, tokens: Any = None) -> Path:
    """A run with a text of each length; ids 10, 11, ... in this order."""
    generator = torch.Generator().manual_seed(1)
    model = Texts()
    with xaicli.Run(folder, strict=True) as run:
        for k, length in enumerate(LENGTHS):
            ids = torch.randint(1, 20, (1, length), generator=generator)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            run.state.mode = "eval"
            run.log_samples(sample_id=[10 + k], label=[k % 2], logits=model(**inputs), mode="eval", epoch=1)
            run.log_inputs([10 + k], inputs, label=[k % 2], tokens=tokens)
        run.save_checkpoint(model, example_inputs={name: value.repeat(2, 1) for name, value in inputs.items()})
    return folder


def explained(xai: Xai, run: Path, out: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    status, said, err = xai(
        "saliency", run, "--model", "ckpt.pt", "-o", out, "--format", "html,json", "--json", *options
    )
    assert status == 0, err
    with np.load(out / "maps.npz") as found:
        return json.loads(said), dict(found)


@pytest.mark.parametrize(("tolerance", "counts"), [(0.02, {2, 4}), (1e-9, {16})])
def test_what_a_tolerance_took_is_said_of_texts_of_all_lengths(
    xai: Xai, tmp_path: Path, tolerance: float, counts: set[int]
) -> None:
    options = ("--methods", "integrated", "--evaluations", "2", "--tolerance", str(tolerance))
    told, _ = explained(xai, recorded(tmp_path / "run"), tmp_path / "out", *options)
    of_maps = [row["methods"]["integrated"] for row in told["rows"]]
    steps = [one["steps"] for one in of_maps]
    assert set(steps) == counts
    told_in_all = ("2 to 4", [2, 4]) if len(counts) > 1 else ("16", 16)
    assert told["selection"]["passes"] == [f"integrated in {told_in_all[0]} steps"]
    assert told["selection"]["evaluations_per_sample"] == told_in_all[1]
    beyond = [one["delta"] > tolerance for one in of_maps]
    assert [not one["settled"] for one in of_maps] == beyond
    said = [text.split(" samples")[0] for text in told["warnings"] if "did not settle" in text]
    assert said == ([f"{sum(beyond)} of 4"] if any(beyond) else [])
    assert any(beyond) is (len(counts) == 1)


def test_each_of_several_lengths_has_the_map_that_it_has_alone(xai: Xai, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run")
    order = [13, 10, 11, 12]
    answer, maps = explained(xai, run, tmp_path / "all", "--ids", ",".join(map(str, order)))
    assert [row["sample_id"] for row in answer["rows"]] == order
    assert maps["sample_id"].tolist() == order
    for place, sample_id in enumerate(order):
        alone, own = explained(xai, run, tmp_path / "one", "--ids", str(sample_id))
        length = LENGTHS[sample_id - 10]
        for name in ("gradient", "smoothgrad", "integrated", "smint"):
            assert own[name].shape == (1, 1, length)
            np.testing.assert_allclose(maps[name][place, :, :length], own[name][0], rtol=0, atol=1e-6)
            assert np.isnan(maps[name][place, :, length:]).all()
            signed = f"attribution/{name}"
            np.testing.assert_allclose(maps[signed][place, :length], own[signed][0], rtol=1e-5, atol=1e-6)
            assert np.isnan(maps[signed][place, length:]).all()
        row, one = answer["rows"][place], alone["rows"][0]
        assert (row["target"], row["prediction"], row["label"]) == (one["target"], one["prediction"], one["label"])
        assert row["label_prob"] == pytest.approx(one["label_prob"], abs=1e-6)


def test_the_seed_s_convention_needs_one_batch(xai: Xai, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run")
    status, _, err = xai("saliency", run, "--model", "ckpt.pt", "-o", tmp_path / "out", "--convention", "fe")
    assert status == 2
    assert "3 shapes" in err


def test_maps_stand_under_the_words_that_were_kept(xai: Xai, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", VOCABULARY)
    explained(xai, run, tmp_path / "out", "--ids", "11")
    rows = pq.read_table(run / "inputs").to_pylist()
    ids = next(row for row in rows if (row["sample_id"], row["name"]) == (11, "input_ids"))
    numbers = np.frombuffer(ids["data"], ids["dtype"]).tolist()
    assert ids["tokens"] == [f"word{n}" for n in numbers]
    page = (tmp_path / "out" / "saliency.html").read_text()
    shown = re.findall(r'<span class="t\d+[^"]*">([^<]*)</span>', page)
    assert shown[: len(numbers)] == [f"word{n}" for n in numbers]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_fills_a_text_up_is_no_word(xai: Xai, tmp_path: Path, side: str) -> None:
    """Two texts of 3 and 5 tokens in one batch: the shorter one's two places of padding are in no map."""
    texts, width = {11: [7, 3, 12], 12: [5, 9, 2, 18, 4]}, 5
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    for row, text in enumerate(texts.values()):
        place = slice(0, len(text)) if side == "right" else slice(width - len(text), width)
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    inputs = {"attention_mask": mask, "input_ids": ids}
    model = Texts()
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.state.mode = "eval"
        run.log_samples(sample_id=list(texts), label=[0, 1], logits=model(ids, mask), mode="eval", epoch=1)
        run.log_inputs(list(texts), inputs, label=[0, 1], tokens=VOCABULARY)
        run.save_checkpoint(model, example_inputs=inputs)
    _, maps = explained(xai, tmp_path / "run", tmp_path / "out", "--ids", "11,12")
    said = {sample_id: [f"word{n}" for n in text] for sample_id, text in texts.items()}
    filled = ["", ""]
    assert maps["words"].tolist() == [said[11] + filled if side == "right" else filled + said[11], said[12]]
    page = (tmp_path / "out" / "saliency.html").read_text()
    assert "PAD" not in page
    articles = re.split("<article", page)[1:]
    for article, sample_id in zip(articles, texts, strict=True):
        panels = re.findall(r'<p class="tokens">(.*?)</p>', article)
        assert len(panels) == 4
        for panel in panels:
            assert re.findall(r">([^<>]+)</span>", panel) == said[sample_id]
        assert ("2 places of padding left out" in article) is (sample_id == 11)
    lengths, _ = kept_inputs(xaicli.open_run(tmp_path / "run").reader())
    assert dict(lengths.select("sample_id", "length").iter_rows()) == {11: 3, 12: 5}


def test_the_words_of_maps_stand_at_their_values(xai: Xai, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", VOCABULARY)
    _, maps = explained(xai, run, tmp_path / "out", "--ids", "13,11")
    kept = {
        row["sample_id"]: np.frombuffer(row["data"], row["dtype"]).tolist()
        for row in pq.read_table(run / "inputs").to_pylist()
        if row["name"] == "input_ids"
    }
    assert maps["sample_id"].tolist() == [13, 11]
    assert maps["words"].shape == maps["gradient"].shape[::2] == (2, 8)
    assert maps["words"][0].tolist() == [f"word{n}" for n in kept[13]]
    assert maps["words"][1].tolist() == [f"word{n}" for n in kept[11]] + [""] * 5
    assert ((maps["words"] != "") == np.isfinite(maps["gradient"][:, 0])).all()


class Tokenizer:
    """As those of transformers: special tokens are known, and spelled unlike what people read."""

    all_special_ids = (0, 1)

    def __len__(self) -> int:
        return 6

    def convert_ids_to_tokens(self, number: int) -> str:
        return ["PAD", "BOS", "\u0120the", "\u0120cat", "\u00c3", "\u010a"][number]

    def decode(self, numbers: list[int]) -> str:
        return {2: " the", 3: " cat", 4: "\ufffd", 5: "\n"}.get(numbers[0], self.convert_ids_to_tokens(numbers[0]))


IDS = np.array([[1, 2, 3], [4, 5, 0]])
READ = [["BOS", " the", " cat"], ["\u00c3", "\u010a", "PAD"]]


@pytest.mark.parametrize(
    ("tokens", "texts", "special"),
    [
        (Tokenizer(), READ, [[0], [2]]),
        ({1: "a", 2: "b", 3: "c"}, [["a", "b", "c"], [None] * 3], [None, None]),
        ({"a": 1, "b": 2, "z": 0}, [["a", "b", None], [None, None, "z"]], [None, None]),
        (["z", "a", "b"], [["a", "b", None], [None, None, "z"]], [None, None]),
        ([["x", "y", "z"], ["u", "v", "w"]], [["x", "y", "z"], ["u", "v", "w"]], [None, None]),
    ],
    ids=["tokenizer", "by id", "by text", "in order", "of each"],
)
def test_what_tokens_stand_for_may_be_said_in_several_ways(
    tmp_path: Path, tokens: Any, texts: Any, special: Any
) -> None:
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_inputs([1, 2], IDS, tokens=tokens)
    rows = pq.read_table(tmp_path / "run" / "inputs").to_pylist()
    assert [row["tokens"] for row in rows] == texts
    assert [row["special"] for row in rows] == special


@pytest.mark.parametrize("tokens", ["bert", [["a"], ["b"]], {99: "a"}, object(), {"mask": ["a"]}])
def test_tokens_that_say_nothing_cost_the_inputs_nothing(tmp_path: Path, tokens: Any) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        with pytest.warns(UserWarning, match="tokens"):
            run.log_inputs([1, 2], IDS, tokens=tokens)
        assert run.stats()["refused"].keys() == {"tokens of inputs"}
    rows = pq.read_table(tmp_path / "run" / "inputs").to_pylist()
    assert [np.frombuffer(row["data"], row["dtype"]).tolist() for row in rows] == IDS.tolist()


def test_tokens_of_inputs_by_name(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_inputs([1, 2], {"question": IDS, "context": IDS + 1}, tokens={"context": list("abcdefg")})
    rows = pq.read_table(tmp_path / "run" / "inputs").to_pylist()
    assert {row["name"]: row["tokens"] for row in rows if row["sample_id"] == 1} == {
        "question": None,
        "context": ["c", "d", "e"],
    }


def test_special_tokens_are_marked_as_the_tokenizer_says(xai: Xai, tmp_path: Path) -> None:
    class Known(Tokenizer):
        def __len__(self) -> int:
            return 20

        def convert_ids_to_tokens(self, number: int) -> str:
            return "[LIKE]" if number > 10 else f"word{number}"

        def decode(self, numbers: list[int]) -> str:
            return self.convert_ids_to_tokens(numbers[0])

        all_special_ids = (3, 4, 5, 6, 7)  # type: ignore[assignment]

    run = recorded(tmp_path / "run", Known())
    explained(xai, run, tmp_path / "out", "--ids", "13")
    page = (tmp_path / "out" / "saliency.html").read_text()
    shown = re.findall(r'<span class="t\d+( special)?">([^<]*)</span>', page)
    assert shown
    assert {word: bool(mark) for mark, word in shown} == {
        word: word in {f"word{n}" for n in (3, 4, 5, 6, 7)} for _, word in shown
    }


def test_pictures_of_several_sizes_are_still_asked_to_be_made_alike(tmp_path: Path) -> None:
    from xaicli.layout import RunLayout
    from xaicli.sources.opening import open_source

    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_inputs([1], np.zeros((1, 3, 8, 8), np.float32))
        run.log_inputs([2], np.zeros((1, 3, 9, 9), np.float32))
    with pytest.raises(XaiError, match="differ in shape") as raised:
        open_source(None, layout=RunLayout(tmp_path / "run")).take_alike(2)
    assert "--resize" in raised.value.hint
