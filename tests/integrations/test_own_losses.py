"""A `compute_loss` of the caller's: labels are those its criterion is given, the order that of what its model is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

import xaicli
from tests.integrations.trainers import said_by_xai

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

N = 12
TOKENS = torch.randint(1, 20, (N, 5), generator=torch.Generator().manual_seed(0))
KINDS = [i % 3 for i in range(N)]


def model_of(kind: str = "SequenceClassification", **config: Any) -> Any:
    torch.manual_seed(0)
    said = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, **config
    )
    return getattr(transformers, f"BertFor{kind}")(said).eval()


def evaluated(
    folder: Path,
    model: Any,
    loss: Callable[[Any, dict[str, Any]], Any],
    labels: Any = None,
    tokens: Any = TOKENS,
    mask: Any = None,
    trains: bool = False,
    **options: Any,
) -> tuple[pl.DataFrame, list[str]]:
    """The rows of an evaluation, or a training that changes nothing, by sample, and what xai said."""
    from xaicli.integrations.transformers import XaiCallback

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            found, outputs = loss(model, inputs)
            return (found, outputs) if return_outputs else found

    labels = KINDS if labels is None and mask is None else labels
    data = [{"sample_id": 100 + i, "input_ids": tokens[i]} for i in range(N)]
    for name, column in (("labels", labels), ("mask", mask)):
        data = data if column is None else [{**one, name: column[i]} for i, one in enumerate(data)]
    arguments = transformers.TrainingArguments(
        str(folder / "out"), per_device_eval_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True,
        remove_unused_columns=mask is None, num_train_epochs=1, per_device_train_batch_size=4, learning_rate=0.0,
        save_strategy="no",
    )  # fmt: skip
    callback = XaiCallback(folder / "run", save_checkpoint=False, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Own(model=model, args=arguments, train_dataset=data, eval_dataset=data, callbacks=[callback])
        trainer.train() if trains else trainer.evaluate()
    found = folder / "run" / "data"
    rows = pl.read_parquet(found).sort("sample_id") if found.exists() else pl.DataFrame()
    return rows, said_by_xai(caught)


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits  # type: ignore[no-any-return]


def test_sets_that_are_made_inside_the_loss_are_the_labels(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = functional.one_hot(inputs.pop("labels"), 3).float()
        outputs = model(**inputs)
        return functional.binary_cross_entropy_with_logits(outputs.logits, target), outputs

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path, model, loss)
    target = functional.one_hot(torch.tensor(KINDS), 3).float()
    expected = functional.binary_cross_entropy_with_logits(answers(model), target, reduction="none").mean(1)
    assert rows["label"].to_list() == [[kind] for kind in KINDS]
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


def test_labels_that_a_loss_maps_are_those_the_model_is_trained_on(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = (inputs.pop("labels") + 1) % 3
        outputs = model(**inputs)
        return functional.cross_entropy(outputs.logits, target), outputs

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path, model, loss)
    mapped = torch.tensor([(kind + 1) % 3 for kind in KINDS])
    assert rows["label"].to_list() == mapped.tolist()
    expected = functional.cross_entropy(answers(model), mapped, reduction="none")
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


def test_a_class_that_a_criterion_leaves_out_is_no_label(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = inputs.pop("labels")
        outputs = model(**inputs)
        return functional.cross_entropy(outputs.logits, target, ignore_index=2), outputs

    model = model_of(num_labels=3)
    rows, _ = evaluated(tmp_path, model, loss)
    own = functional.cross_entropy(answers(model), torch.tensor(KINDS), reduction="none").tolist()
    assert rows["label"].to_list() == [None if kind == 2 else kind for kind in KINDS]
    counted = [None if kind == 2 else pytest.approx(own[i], abs=1e-5) for i, kind in enumerate(KINDS)]
    assert rows["loss"].to_list() == counted


def test_places_that_move_within_their_sample_are_no_other_order(tmp_path: Path) -> None:
    """Labels of places moved by one have as many of each class in a sample as before."""

    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = inputs.pop("labels").roll(-1, 1)
        outputs = model(**inputs)
        return functional.cross_entropy(outputs.logits.flatten(0, 1), target.flatten()), outputs

    model = model_of("TokenClassification", num_labels=3)
    labels = TOKENS % 3
    labels[:, 0] = -100
    rows, said = evaluated(tmp_path, model, loss, labels)
    each = functional.cross_entropy(answers(model).movedim(2, 1), labels.roll(-1, 1), reduction="none")
    assert rows["loss"].to_list() == pytest.approx((each.sum(1) / 4).tolist(), abs=1e-5)
    assert rows["n_tokens"].to_list() == [4] * N
    assert ["another order" in one for one in said if "every sequence" not in one] == []


@pytest.mark.parametrize("keeps_order", [None, True, False])
def test_an_order_that_a_loss_does_not_show_is_said(tmp_path: Path, keeps_order: bool | None) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = inputs.pop("labels").clone()
        outputs = model(input_ids=inputs["input_ids"].clamp(min=3))
        return functional.nll_loss(outputs.logits.log_softmax(1) * 2, target), outputs

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path, model, loss, [1] * N, keeps_order=keeps_order)
    shown = ["nothing shows in which order compute_loss gives the model" in one for one in said]
    assert shown == ([] if keeps_order else [True])
    if keeps_order is False:
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        return
    with torch.no_grad():
        logits = model(input_ids=TOKENS.clamp(min=3)).logits
    expected = functional.cross_entropy(logits, torch.ones(N).long(), reduction="none")
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_sets_of_a_loss_that_is_not_known_are_asked_for_with_the_line_that_records_them(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = functional.one_hot(inputs.pop("labels"), 3)
        outputs = model(**inputs)
        shares = outputs.logits.sigmoid()
        return -(target * shares.log() + (1 - target) * (1 - shares).log()).mean(), outputs

    model = model_of(num_labels=3, problem_type="multi_label_classification")
    _, said = evaluated(tmp_path / "asked", model, loss)
    line = next(one for one in said if "do not fit" in one)
    assert "(4,)" in line
    written = line.partition("XaiCallback(..., ")[2].partition("), with torch.nn.functional as F")[0]
    options = eval(f"dict({written})", {"F": functional})  # noqa: S307
    rows, said = evaluated(tmp_path / "said", model, loss, **options)
    target = functional.one_hot(torch.tensor(KINDS), 3).float()
    expected = functional.binary_cross_entropy_with_logits(answers(model), target, reduction="none").mean(1)
    assert said == []
    assert rows["label"].to_list() == [[kind] for kind in KINDS]
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert xaicli.open_run(tmp_path / "said" / "run").reader().manifest.task == "multilabel"


@pytest.mark.parametrize("way", ["weighed", "chosen"])
def test_places_that_a_loss_leaves_out_by_a_mask_do_not_count(tmp_path: Path, way: str) -> None:
    """The mask is made of the batch: token 0 fills the texts up."""
    labels = TOKENS % 3
    filled = TOKENS.clone()
    filled[:, 3:] = 0

    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        truth, counts = inputs.pop("labels"), inputs["input_ids"] != 0
        outputs = model(input_ids=inputs["input_ids"])
        if way == "weighed":
            each = functional.cross_entropy(outputs.logits.movedim(2, 1), truth, reduction="none")
            return (each * counts).sum() / counts.sum(), outputs
        return functional.cross_entropy(outputs.logits[counts], truth[counts]), outputs

    model = model_of("TokenClassification", num_labels=3)
    rows, _ = evaluated(tmp_path, model, loss, labels, tokens=filled)
    with torch.no_grad():
        logits = model(input_ids=filled).logits
    each = functional.cross_entropy(logits.movedim(2, 1), labels, reduction="none")[:, :3]
    assert rows["n_tokens"].to_list() == [3] * N
    assert rows["loss"].to_list() == pytest.approx(each.mean(1).tolist(), abs=1e-5)


@pytest.mark.parametrize("way", ["weighed", "chosen"])
def test_a_mask_that_a_batch_does_not_show_is_asked_about(tmp_path: Path, way: str) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        truth, ids = inputs.pop("labels"), inputs["input_ids"]
        counts = (ids != 0) & (ids % 4 != 0)
        outputs = model(input_ids=ids)
        if way == "weighed":
            each = functional.cross_entropy(outputs.logits.movedim(2, 1), truth, reduction="none")
            return (each * counts).sum() / counts.sum(), outputs
        places = counts.nonzero(as_tuple=True)  # which says nothing of what it is made of
        return functional.cross_entropy(outputs.logits[places], truth[places]), outputs

    filled = TOKENS.clone()
    filled[:, 3:] = 0
    rows, said = evaluated(tmp_path, model_of("TokenClassification", num_labels=3), loss, TOKENS % 3, tokens=filled)
    assert rows.is_empty()
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
    assert ["ignore_index" in one for one in said] == [True]


def test_the_labels_are_the_criterions_where_other_memory_is_returned(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = (inputs.pop("labels") + 1) % 3
        outputs = model(**inputs)
        return functional.cross_entropy(outputs.logits * 1.0, target), {"logits": outputs.logits.clone()}

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path, model, loss)
    mapped = torch.tensor([(kind + 1) % 3 for kind in KINDS])
    assert rows["label"].to_list() == mapped.tolist()
    expected = functional.cross_entropy(answers(model), mapped, reduction="none")
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


def test_samples_that_a_loss_leaves_out_have_no_label_of_another_kind(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target, counts = (inputs.pop("labels") + 1) % 3, inputs["input_ids"][:, 0] % 2 == 0
        outputs = model(**inputs)
        return functional.cross_entropy(outputs.logits[counts], target[counts]), outputs

    rows, _ = evaluated(tmp_path, model_of(num_labels=3), loss)
    counts = (TOKENS[:, 0] % 2 == 0).tolist()
    assert rows["label"].to_list() == [(KINDS[i] + 1) % 3 if counts[i] else None for i in range(N)]


SPOKEN = [[i % 2 + 2, 3 + i % 3, 5][i % 3] for i in range(N)]
"""The first place of each text whose token is answered for, as `mask` says it."""
MASKS = torch.stack([(torch.arange(5) >= first).long() for first in SPOKEN])


def _of_all_next(model: Any, inputs: dict[str, Any]) -> Any:
    """The tokens are the labels, the batch has no others."""
    outputs = model(input_ids=inputs["input_ids"])
    return outputs, outputs.logits[:, :-1], inputs["input_ids"][:, 1:], MASKS[:4, 1:] * 0 + 1


def _of_masked(model: Any, inputs: dict[str, Any]) -> Any:
    outputs = model(input_ids=inputs["input_ids"])
    return outputs, outputs.logits[:, :-1], inputs["input_ids"][:, 1:], inputs["mask"][:, 1:]


def _beside_the_model_s_own(model: Any, inputs: dict[str, Any]) -> Any:
    outputs = model(input_ids=inputs["input_ids"], labels=inputs["labels"])
    return outputs, outputs.logits[:, :-1], inputs["labels"][:, 1:], inputs["mask"][:, 1:]


def _shifted_by_the_data(model: Any, inputs: dict[str, Any]) -> Any:
    outputs = model(input_ids=inputs["input_ids"])
    return outputs, outputs.logits, inputs["labels"], inputs["mask"] * 0 + 1


@pytest.mark.parametrize("chooses", [False, True], ids=["weighs", "chooses"])
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (_of_all_next, None),
        (_of_masked, None),
        (_of_masked, TOKENS),
        (_beside_the_model_s_own, TOKENS),
        (_shifted_by_the_data, TOKENS.roll(-1, 1)),
    ],
)
def test_a_causal_model_s_places_are_those_of_its_loss(
    tmp_path: Path, loss: Any, labels: torch.Tensor | None, chooses: bool
) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()

    def own(model: Any, inputs: dict[str, Any]) -> Any:
        outputs, scores, truth, mask = loss(model, inputs)
        if chooses and loss is _beside_the_model_s_own:
            return functional.cross_entropy(scores[mask.bool()], truth[mask.bool()]), outputs
        if not chooses or loss is _of_masked:
            each = functional.cross_entropy(scores.reshape(-1, 20), truth.reshape(-1), reduction="none")
            return (each * mask.reshape(-1)).sum() / mask.sum(), outputs
        return functional.cross_entropy(scores.reshape(-1, 20), truth.reshape(-1)), outputs

    rows, said = evaluated(tmp_path, model, own, labels, mask=MASKS, trains=labels is None)
    inputs = {"input_ids": TOKENS, "mask": MASKS, "labels": labels}
    with torch.no_grad():
        _, scores, truth, mask = loss(model, inputs)
    mask = torch.ones_like(truth) * mask[:1] if len(mask) < N else mask
    each = functional.cross_entropy(scores.movedim(2, 1), truth, reduction="none")
    counts = mask.sum(1)
    expected = ((each * mask).sum(1) / counts).tolist()
    assert rows["sample_id"].to_list() == [100 + i for i in range(N)], said
    assert rows["n_tokens"].fill_null(0).to_list() == counts.tolist()
    for found, value, n in zip(rows["loss"], expected, counts, strict=True):
        assert found == (pytest.approx(value, abs=1e-5) if n else None)


def test_the_criterion_of_the_caller_counts_before_the_model_s_own(tmp_path: Path) -> None:
    """A model that is given labels computes a loss of them, too, which is not the one that is trained on."""
    model = model_of("TokenClassification", num_labels=3)
    classes = torch.stack([TOKENS[i] % 3 for i in range(N)])

    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        outputs = model(input_ids=inputs["input_ids"], labels=inputs["labels"])
        return functional.cross_entropy(outputs.logits.movedim(2, 1), 2 - inputs["labels"]), outputs

    rows, _ = evaluated(tmp_path, model, loss, classes)
    expected = functional.cross_entropy(answers(model).movedim(2, 1), 2 - classes, reduction="none").mean(1)
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("way", ["soft", "mixed"])
def test_labels_beside_targets_of_parts_are_the_batch_s_own_and_said(tmp_path: Path, way: str) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        truth = inputs.pop("labels")
        outputs = model(**inputs)
        if way == "soft":
            return functional.cross_entropy(outputs.logits, 0.3 * functional.one_hot(2 - truth, 3) + 0.7 / 3), outputs
        turned = functional.cross_entropy(outputs.logits, truth.flip(0))
        return 0.7 * turned + 0.3 * functional.cross_entropy(outputs.logits, truth), outputs

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path, model, loss)
    expected = functional.cross_entropy(answers(model), torch.tensor(KINDS), reduction="none")
    assert rows["label"].to_list() == list(KINDS)
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    words = "soft labels" if way == "soft" else "the same answers with several labels"
    assert [words in one for one in said] == [True]


def test_labels_of_parts_are_read_as_log_samples_does(tmp_path: Path) -> None:
    parts = torch.randn(N, 3, generator=torch.Generator().manual_seed(1)).softmax(1)

    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = inputs.pop("labels")
        outputs = model(**inputs)
        return functional.cross_entropy(outputs.logits, target), outputs

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path, model, loss, labels=parts.tolist())
    expected = functional.cross_entropy(answers(model), parts, reduction="none")
    assert rows["label"].to_list() == parts.argmax(1).tolist()
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert not said


def test_pairs_of_texts_are_asked_for_with_the_line_that_records_them(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        chosen, rejected = (
            model(input_ids=one).logits[:, 0] for one in (inputs["input_ids"], inputs["input_ids"].flip(1))
        )
        named = {"rewards_chosen": chosen, "rewards_rejected": rejected}
        return -functional.logsigmoid(chosen - rejected).mean(), named

    model = model_of(num_labels=3)
    rows, said = evaluated(tmp_path / "asked", model, loss)
    assert rows.is_empty()
    assert xaicli.open_run(tmp_path / "asked" / "run").reader().counts().dropped == N
    line = next(one for one in said if "compares two texts" in one)
    samples_fn = eval(line.partition("samples_fn=")[2].partition(") records")[0])  # noqa: S307
    rows, said = evaluated(tmp_path / "said", model, loss, samples_fn=samples_fn)
    with torch.no_grad():
        expected = model(input_ids=TOKENS).logits[:, 0] - model(input_ids=TOKENS.flip(1)).logits[:, 0]
    assert rows["preferred_by"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


@pytest.mark.parametrize("way", ["picked", "weighed"])
def test_numbers_that_a_loss_leaves_out_do_not_count(tmp_path: Path, way: str) -> None:
    known = [[True, i % 2 == 0] if i != 3 else [False, False] for i in range(N)]
    numbers = torch.randn(N, 2, generator=torch.Generator().manual_seed(1))
    given = numbers.masked_fill(~torch.tensor(known), torch.nan)

    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        target = inputs.pop("labels")
        outputs = model(**inputs)
        inside = ~target.isnan()
        if way == "picked":
            return functional.mse_loss(outputs.logits[inside], target[inside]), outputs
        each = functional.mse_loss(outputs.logits, torch.nan_to_num(target), reduction="none")
        return (each * inside).sum() / inside.sum(), outputs

    model = model_of(num_labels=2, problem_type="regression")
    rows, said = evaluated(tmp_path, model, loss, labels=given.tolist())
    each = (answers(model) - numbers).square()
    expected = [
        None if not any(inside) else pytest.approx(float(row[torch.tensor(inside)].mean()), abs=1e-5)
        for row, inside in zip(each, known, strict=True)
    ]
    assert rows["loss"].to_list() == expected
    assert not said


def test_a_criterion_that_is_given_a_part_of_the_answers_says_which_count(tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        labels, outputs = inputs.pop("labels"), model(**inputs)
        beside = functional.mse_loss(outputs.logits[:, 3], inputs["input_ids"][:, 0] / 20)
        return functional.cross_entropy(outputs.logits[:, :3], labels) + beside, outputs

    def heads(model: Any, inputs: dict[str, Any]) -> Any:
        labels, outputs = inputs.pop("labels"), model(**inputs)
        first = functional.cross_entropy(outputs.logits[:, :2], labels[:, 0])
        return first + functional.cross_entropy(outputs.logits[:, 2:], labels[:, 1]), outputs

    model = model_of(num_labels=4)
    rows, said = evaluated(tmp_path / "part", model, loss)
    z, kinds = answers(model)[:, :3], torch.tensor(KINDS)
    assert rows["label"].to_list() == KINDS
    assert rows["prediction"].to_list() == z.argmax(1).tolist()
    expected = functional.cross_entropy(z, kinds, reduction="none")
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []
    rows, said = evaluated(tmp_path / "heads", model, heads, [[kind % 2, i % 2] for i, kind in enumerate(KINDS)])
    assert rows.is_empty()
    assert "gives criteria several parts of its answers" in said[0]


class Score(torch.nn.Module):
    """One number a text, and no configuration that says what it means."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(20, 4)
        self.last = torch.nn.Linear(4, 1)

    def forward(self, input_ids: Any, labels: Any = None) -> Any:
        del labels
        return {"logits": self.last(self.words(input_ids).mean(1))[:, 0]}


@pytest.mark.parametrize("is_number", [True, False])
def test_squared_errors_of_zeros_and_ones_are_of_numbers_and_smoothed_ones_of_yes_and_no(
    tmp_path: Path, is_number: bool
) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        labels, outputs = inputs.pop("labels"), model(**inputs)
        if is_number:
            return functional.mse_loss(outputs["logits"], labels), outputs
        return functional.binary_cross_entropy_with_logits(outputs["logits"], labels * 0.9 + 0.05), outputs

    model, bits = Score(), torch.arange(N) % 2
    rows, said = evaluated(tmp_path, model, loss, bits.float().tolist())
    with torch.no_grad():
        z = model(TOKENS)["logits"].double()
    expected = (z - bits).square() if is_number else torch.log1p(z.exp()) - z * bits
    predicted = z if is_number else (z > 0).long()
    assert rows["label"].to_list() == bits.tolist()
    assert rows["prediction"].to_list() == pytest.approx(predicted.tolist(), abs=1e-5)
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(said) == (0 if is_number else 1)


def test_a_loss_that_compares_samples_has_rows_only_of_answers_beside(tmp_path: Path) -> None:
    def compared(model: Any, inputs: dict[str, Any]) -> Any:
        labels, outputs = inputs.pop("labels"), model(**inputs)
        a = functional.normalize(outputs.logits)
        return 0.5 * functional.cross_entropy(a @ a.T, torch.arange(len(a))), outputs, labels

    def beside(model: Any, inputs: dict[str, Any]) -> Any:
        found, outputs, labels = compared(model, inputs)
        log_p = outputs.logits.log_softmax(1)
        return found - log_p[range(len(labels)), labels].mean(), outputs

    model = model_of(num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    rows, said = evaluated(tmp_path / "alone", model, lambda m, i: compared(m, i)[:2], trains=True)
    assert rows.is_empty()
    assert len(said) == 1
    assert "compute_loss compares the samples of a batch with one another" in said[0]
    rows, said = evaluated(tmp_path / "beside", model, beside, trains=True)
    expected = functional.cross_entropy(answers(model), torch.tensor(KINDS), reduction="none")
    assert rows["label"].to_list() == KINDS
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []
