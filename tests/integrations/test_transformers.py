"""The transformers callback, with its Trainer training a tiny model."""

from __future__ import annotations

import copy
import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

import xaicli
from tests.integrations.trainers import said_by_xai
from xaicli.checkpoint.load import load_checkpoint
from xaicli.heads.outputs import tensor_at, where_of

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")

N, EPOCHS = 16, 2
TOKENS = torch.randint(1, 20, (N, 6), generator=torch.Generator().manual_seed(0))
LABELS = (TOKENS[:, 0] > 10).long()
DATA = [
    {"sample_id": 1000 + i, "input_ids": TOKENS[i], "attention_mask": torch.ones(6).long(), "labels": int(LABELS[i])}
    for i in range(N)
]


def tiny(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        **({} if "id2label" in options else {"num_labels": 2}) | options,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def train(model: Any, callback: Any, folder: Path, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"), num_train_epochs=EPOCHS, per_device_train_batch_size=4,
        per_device_eval_batch_size=8, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False, logging_steps=2, learning_rate=1e-2, **options,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=DATA, eval_dataset=DATA, callbacks=[callback]
    )
    trainer.train()
    return trainer


def rows(run: Path, mode: str) -> pl.DataFrame:
    return pl.read_parquet(run / "data").filter(pl.col("mode") == mode)


def test_evaluations_after_a_resume_within_an_epoch_come_behind_those_before_it(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if trainer.state.global_step == 5 and not checkpoint:
                raise RuntimeError("stopped")

    for checkpoint in (None, str(tmp_path / "out" / "checkpoint-4")):
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=2, use_cpu=True,
            per_device_eval_batch_size=8, eval_strategy="steps", eval_steps=2, save_steps=4, report_to=[],
            disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
        trainer = transformers.Trainer(
            model=tiny(), args=arguments, train_dataset=DATA, eval_dataset=DATA[:8], callbacks=[callback, Stop()]
        )
        if checkpoint is None:
            with pytest.raises(RuntimeError, match="stopped"):
                trainer.train()
            callback.run.close()
        else:
            trainer.train(resume_from_checkpoint=checkpoint)
    found = xaicli.open_run(tmp_path / "run").scan(mode="eval").collect()
    places = found.group_by("epoch", "pass", "step").len().sort("step")
    assert places.rows() == [(1, number, 2 * number + 2, 8) for number in range(4)]


def test_samples_tables_checkpoint_and_inputs_are_recorded(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    model = tiny()
    table = xaicli.Table(DATA, name="val", schema={"labels": ["low", "high"]})
    callback = XaiCallback(
        tmp_path / "run",
        tables={"val": table},
        collectors=[
            xaicli.ClassificationMetricsCollector(["low", "high"]),
            xaicli.EmbeddingsMetricsCollector("bert.encoder.layer.0", reduction="pca"),
        ],
        collect_epochs="every",
        keep_inputs=4,
        label_names=["low", "high"],
    )
    train(model, callback, tmp_path)
    run = tmp_path / "run"
    recorded = rows(run, "train")
    assert recorded.group_by("epoch").len().sort("epoch").rows() == [(1, N), (2, N)]
    assert sorted(recorded["step"].unique()) == list(range(1, 9))
    expected_labels = {1000 + i: int(y) for i, y in enumerate(LABELS)}
    assert dict(zip(recorded["sample_id"], recorded["label"], strict=True)) == expected_labels

    model.eval()
    with torch.no_grad():
        logits = model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
    expected = functional.cross_entropy(logits, LABELS, reduction="none").tolist()
    evaluated = rows(run, "eval").filter(pl.col("epoch") == EPOCHS).sort("sample_id")
    assert evaluated["loss"].to_list() == pytest.approx(expected, abs=1e-5)

    collected = pl.read_parquet(run / "tables" / "metrics" / "*.parquet").sort("epoch", "example_id")
    assert collected["epoch"].to_list() == [1] * N + [2] * N
    assert collected["loss"].to_list()[N:] == pytest.approx(expected, abs=1e-5)
    assert len(collected["embeddings_bert.encoder.layer.0"][0]) == 8
    assert len(collected["embeddings_bert.encoder.layer.0_pca"][0]) == 2
    scalars = pl.read_parquet(run / "scalars" / "*.parquet")
    assert {"loss", "eval_loss", "val/loss", "val/accuracy"} <= set(scalars["key"])
    losses = scalars.filter(pl.col("key") == "loss").sort("step")
    assert losses["step"].to_list() == [2, 4, 6, 8]
    steps = recorded.group_by("step").agg(pl.col("loss").mean()).sort("step")["loss"].to_list()
    means = [(steps[i] + steps[i + 1]) / 2 for i in range(0, 8, 2)]
    assert losses["value"].to_list() == pytest.approx(means, abs=1e-3)

    loaded = load_checkpoint(run / "checkpoints" / "ckpt.pt")
    with torch.no_grad():
        again = loaded.model(TOKENS, torch.ones_like(TOKENS))
    found = again if isinstance(again, torch.Tensor) else tensor_at(again, where_of(again)[0])
    assert torch.allclose(found, logits, atol=1e-5)
    kept = pl.read_parquet(run / "inputs" / "*.parquet")
    assert set(kept["name"]) == {"input_ids", "attention_mask"}
    assert kept.filter((pl.col("mode") == "eval") & (pl.col("name") == "input_ids"))["sample_id"].to_list() == [
        1000, 1001, 1002, 1003,
    ]  # fmt: skip
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def arguments(folder: Path, **options: Any) -> Any:
    given = {
        "num_train_epochs": 1, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "learning_rate": 1e-2,
    }  # fmt: skip
    return transformers.TrainingArguments(output_dir=str(folder / "out"), **{**given, **options})


def said_of(work: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(warning.message) for warning in caught if "xai" in str(warning.message)]


def test_ids_get_past_collator_and_unused_columns(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def recorded(name: str, data: Any, **options: Any) -> tuple[list[Any], list[str]]:
        callback = XaiCallback(tmp_path / name, save_checkpoint=False)
        trainer = transformers.Trainer(
            model=tiny(), args=arguments(tmp_path, **options), train_dataset=data, callbacks=[callback]
        )
        said = said_of(trainer.train)
        found = rows(tmp_path / name, "train").sort("sample_id")
        labels = dict(found.select("sample_id", "label").iter_rows())
        number = {i: n for n, i in enumerate(sorted(labels, key=lambda i: int(str(i).rpartition("-")[2])))}
        assert {number[i]: label for i, label in labels.items()} == dict(enumerate(LABELS.tolist()))
        return found["sample_id"].to_list(), said

    assert recorded("whole", DATA) == ([1000 + i for i in range(N)], [])
    texts = [{**sample, "sample_id": f"doc-{i}"} for i, sample in enumerate(DATA)]
    ids, said = recorded("texts", texts, dataloader_num_workers=2)
    assert sorted(ids) == sorted(f"doc-{i}" for i in range(N))
    assert len(said) == 1
    assert "collator" in said[0]
    plain = [{name: value for name, value in sample.items() if name != "sample_id"} for sample in DATA]
    ids, said = recorded("plain", plain)
    assert ids == list(range(N))
    assert len(said) == 1
    assert "its rows' numbers are taken" in said[0]


def test_every_evaluation_is_a_pass_of_its_own_set(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = transformers.Trainer(
        model=tiny(),
        args=arguments(tmp_path, eval_strategy="steps", eval_steps=2, num_train_epochs=2),
        train_dataset=DATA,
        eval_dataset={"day": DATA[:6], "night": DATA[6:]},
        callbacks=[callback],
    )
    assert said_of(trainer.train) == []
    evaluated = rows(tmp_path / "run", "eval")
    places = evaluated.group_by("ds_id", "epoch", "pass", "step").agg(pl.len(), pl.col("sample_id").n_unique())
    assert sorted(places.iter_rows()) == sorted(
        (ds_id, epoch, turn, 4 * (epoch - 1) + 2 * (turn + 1), n, n)
        for ds_id, n in (("day", 6), ("night", 10))
        for epoch in (1, 2)
        for turn in (0, 1)
    )
    trainer.evaluate(DATA[:3])
    found = trainer.predict(DATA[:5])
    after = rows(tmp_path / "run", "eval").filter(pl.col("ds_id") == "")
    assert after.select("epoch", "pass", "sample_id").rows() == [(2, 0, 1000 + i) for i in range(3)]
    tested = rows(tmp_path / "run", "test")
    assert tested["prediction"].to_list() == found.predictions.argmax(1).tolist()
    assert tested["epoch"].unique().to_list() == [2]
    trainer.train()  # goes on after the second epoch
    train = rows(tmp_path / "run", "train")
    assert train.group_by("epoch").len().sort("epoch").rows() == [(epoch, N) for epoch in (1, 2, 3, 4)]
    assert train.group_by("epoch").agg(pl.col("step").max()).sort("epoch")["step"].to_list() == [4, 8, 12, 16]
    info = xaicli.open_run(tmp_path / "run").info()
    assert not info.answer.counts.taken_back


def test_the_loss_of_each_sample_is_plain_under_label_smoothing_and_own_losses(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = functional.multi_margin_loss(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    for name, kind, options in (("smooth", transformers.Trainer, {"label_smoothing_factor": 0.3}), ("own", Own, {})):
        callback = XaiCallback(tmp_path / name, save_checkpoint=False)
        trainer = kind(
            model=tiny(),
            args=arguments(tmp_path, learning_rate=0.0, **options),
            train_dataset=DATA,
            eval_dataset=DATA,
            callbacks=[callback],
        )
        assert said_of(trainer.train) == []
        trainer.evaluate()
        with torch.no_grad():
            logits = tiny().eval()(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
        expected = functional.cross_entropy(logits, LABELS, reduction="none").tolist()
        for mode in ("train", "eval"):
            got = rows(tmp_path / name, mode).sort("sample_id")
            assert got["loss"].to_list() == pytest.approx(expected, abs=1e-5), (name, mode)
            assert got["label"].to_list() == LABELS.tolist()


def test_language_models_have_a_loss_a_sequence(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    small = {"vocab_size": 30, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    causal = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=8, n_layer=1, n_head=2, n_positions=12, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **small
        )
    )
    both = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0, decoder_start_token_id=0, **small
        )
    )
    tokens = torch.randint(1, 30, (8, 9), generator=torch.Generator().manual_seed(1))
    masked = tokens.clone()
    for i in range(8):
        masked[i, 9 - i % 4 :] = -100  # padding
    masked[3, 2:4] = -100
    masked[5] = -100
    for name, model, shift in (("causal", causal, 1), ("both", both, 0)):
        data = [{"sample_id": i, "input_ids": tokens[i], "labels": masked[i]} for i in range(8)]
        callback = XaiCallback(tmp_path / name, save_checkpoint=False, keep_inputs=0, keep_tokens=True)
        trainer = transformers.Trainer(
            model=model,
            args=arguments(tmp_path, learning_rate=0.0, label_smoothing_factor=0.1 if shift else 0.0),
            train_dataset=data,
            eval_dataset=data,
            callbacks=[callback],
        )
        assert said_of(trainer.train) == []
        trainer.evaluate()
        with torch.no_grad():
            logits = model.eval()(input_ids=tokens, labels=masked.clamp(min=0) if not shift else None).logits
        if not shift:  # the decoder's inputs are the labels moved by one, ignored ones being padding
            with torch.no_grad():
                logits = model(input_ids=tokens, labels=masked).logits
        for mode in ("train", "eval"):
            got = rows(tmp_path / name, mode).sort("sample_id")
            for i, row in enumerate(got.iter_rows(named=True)):
                answers, truth = (logits[i, :-1], masked[i, 1:]) if shift else (logits[i], masked[i])
                known = truth >= 0
                assert row["n_tokens"] == int(known.sum()), (name, i)
                each = functional.cross_entropy(answers, truth, reduction="none")[known]
                assert row["token_losses"] == pytest.approx(each.tolist(), rel=2e-3), (name, mode, i)
                if known.any():
                    loss = functional.cross_entropy(answers, truth, ignore_index=-100)
                    assert row["loss"] == pytest.approx(float(loss), abs=1e-4), (name, mode, i)
                    hits = (answers.argmax(1) == truth)[known].float().mean()
                    assert row["token_accuracy"] == pytest.approx(float(hits), abs=1e-6)


def test_regression_several_labels_and_tokens_by_the_configuration(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def train(name: str, model: Any, labels: Any) -> pl.DataFrame:
        data = [{**sample, "labels": labels[i]} for i, sample in enumerate(DATA)]
        callback = XaiCallback(tmp_path / name, save_checkpoint=False)
        trainer = transformers.Trainer(
            model=model, args=arguments(tmp_path, learning_rate=0.0), train_dataset=data, callbacks=[callback]
        )
        assert len(said_of(trainer.train)) <= 1
        return rows(tmp_path / name, "train").sort("sample_id")

    def answers(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits  # type: ignore[no-any-return]

    values = torch.linspace(-2, 3, N)
    model = tiny(num_labels=1)
    got = train("values", model, values.tolist())
    residual = values - answers(model)[:, 0]
    assert got["loss"].to_list() == pytest.approx(residual.square().tolist(), abs=1e-4)
    assert got["residual"].to_list() == pytest.approx(residual.tolist(), abs=1e-5)
    assert got["label"].to_list() == pytest.approx(values.tolist())
    assert got["prediction"].to_list() == pytest.approx(answers(model)[:, 0].tolist(), abs=1e-5)
    assert "correct" not in got.columns or got["correct"].null_count() == N

    sets = (torch.arange(3 * N).reshape(N, 3) % 5 == 0).float()
    model = tiny(num_labels=3, problem_type="multi_label_classification")
    got = train("sets", model, sets.tolist())
    each = functional.binary_cross_entropy_with_logits(answers(model), sets, reduction="none").mean(1)
    assert got["loss"].to_list() == pytest.approx(each.tolist(), abs=1e-5)
    assert got["n_wrong"].to_list() == ((answers(model) > 0) != (sets > 0)).sum(1).tolist()

    assert got["label"].to_list() == [row.nonzero()[:, 0].tolist() for row in sets]
    assert got["prediction"].to_list() == [row.nonzero()[:, 0].tolist() for row in answers(model) > 0]
    assert got["correct"].to_list() == ((answers(model) > 0) == (sets > 0)).all(1).tolist()

    tags = TOKENS % 3
    tags[:, 4:] = -100
    torch.manual_seed(0)
    model = transformers.BertForTokenClassification(tiny(num_labels=3).config)
    got = train("tags", model, tags.tolist())
    loss = functional.cross_entropy(answers(model).movedim(2, 1), tags, reduction="none").sum(1) / 4
    assert got["loss"].to_list() == pytest.approx(loss.tolist(), abs=1e-5)
    assert set(got["n_tokens"]) == {4}
    p = answers(model)[:, :4].softmax(2)
    assert got["entropy"].to_list() == pytest.approx((-p * p.log()).sum(2).mean(1).tolist(), abs=1e-4)


def test_the_whole_model_can_be_saved_and_copied_while_it_is_recorded(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Keep(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, *_moment: Any, model: Any = None, **_others: Any) -> None:
            torch.save(model, tmp_path / "model.pt")
            twin = copy.deepcopy(model)
            twin(input_ids=TOKENS[:2])  # a teacher's answers are not the model's

    model = tiny()
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = transformers.Trainer(
        model=model, args=arguments(tmp_path), train_dataset=DATA, callbacks=[callback, Keep()]
    )
    trainer.train()
    assert len(rows(tmp_path / "run", "train")) == N
    again = torch.load(tmp_path / "model.pt", weights_only=False).eval()
    assert torch.equal(again(input_ids=TOKENS).logits, model.eval()(input_ids=TOKENS).logits)


def test_what_the_model_is_configured_with_is_the_run_s(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    model = tiny(id2label={0: "low", 1: "high"}, label2id={"low": 0, "high": 1})
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    transformers.Trainer(
        model=model, args=arguments(tmp_path, weight_decay=0.25), train_dataset=DATA, callbacks=[callback]
    ).train()
    manifest = xaicli.open_run(tmp_path / "run").layout.read_manifest()
    assert manifest.label_names == ("low", "high")
    assert manifest.config["weight_decay"] == 0.25


def test_a_resumed_training_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def train(resume: str | None, **options: Any) -> None:
        trainer = transformers.Trainer(
            model=tiny(),
            args=arguments(tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=3, **options),
            train_dataset=DATA,
            callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
        )
        trainer.train(resume_from_checkpoint=resume)

    train(None)
    train(str(tmp_path / "out" / "checkpoint-3"))
    reader = xaicli.open_run(tmp_path / "run")
    seen = reader.scan(mode="train").collect()
    places = seen.group_by("epoch").agg(pl.len(), pl.col("sample_id").n_unique().alias("ids")).sort("epoch")
    assert places.rows() == [(1, N, N), (2, N, N)]
    attempts = seen.group_by("attempt").agg(pl.len(), pl.col("step").min(), pl.col("step").max().alias("last"))
    assert attempts.sort("attempt").rows() == [(0, 12, 1, 3), (1, 20, 4, 8)]
    assert reader.info().answer.counts.taken_back == 20


def test_columns_that_are_no_inputs_stay_away_from_the_model(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    data = [{**sample, "idx": i, "guid": f"g{i}"} for i, sample in enumerate(DATA)]
    for unused in (True, False):
        callback = XaiCallback(tmp_path / f"run-{unused}", save_checkpoint=False)
        trainer = transformers.Trainer(
            model=tiny(),
            args=arguments(tmp_path, remove_unused_columns=unused),
            train_dataset=data,
            eval_dataset=data,
            callbacks=[callback],
        )
        trainer.train()
        trainer.evaluate()
        for mode in ("train", "eval"):
            assert set(rows(tmp_path / f"run-{unused}", mode)["sample_id"]) == {1000 + i for i in range(N)}


def test_a_training_step_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def training_step(self, model: Any, inputs: Any, *_others: Any, **_more: Any) -> Any:
            inputs = {name: value for name, value in inputs.items() if name != "sample_id"}
            loss = model(**inputs).loss
            loss.backward()
            return loss.detach()

    trainer = Own(
        model=tiny(),
        args=arguments(tmp_path),
        train_dataset=DATA,
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
    )
    said = said_of(trainer.train)
    assert len(said) == 1
    assert "training_step does not call compute_loss" in said[0]


def test_texts_are_kept_as_facts_where_they_are_asked_for(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i for i in range(2, 20)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    texts = {f"doc-{i}": " ".join(f"w{2 + (i * k) % 18}" for k in range(1, 3 + i % 4)) for i in range(N)}
    data = [{"sample_id": name, **tokenizer(text), "labels": i % 2} for i, (name, text) in enumerate(texts.items())]
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, facts=("text",))
    trainer = transformers.Trainer(
        model=tiny(),
        args=arguments(tmp_path, num_train_epochs=2),
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    facts = pl.read_parquet(tmp_path / "run" / "facts" / "*.parquet")
    assert dict(facts.select("sample_id", "text").iter_rows()) == texts
    assert facts.height == N
    assert rows(tmp_path / "run", "train").height == 2 * N
    kept = pl.read_parquet(tmp_path / "run" / "inputs" / "*.parquet").filter(pl.col("name") == "input_ids")
    for sample_id, tokens, special in kept.select("sample_id", "tokens", "special").iter_rows():
        own = texts[sample_id].split()
        assert tokens == own + ["[PAD]"] * (len(tokens) - len(own))
        assert special == list(range(len(own), len(tokens)))


def test_the_first_forward_says_that_labels_are_sets(tmp_path: Path) -> None:
    """Without a problem_type the model takes rows of real zeros and ones for sets, and its loss is of each."""
    from xaicli.integrations.transformers import XaiCallback

    sets = torch.stack([(TOKENS[:, i] > 10).float() for i in range(3)], 1)
    sets[0] = torch.tensor([1.0, 0.0, 0.0])  # one class of several, as in a mixture
    data = [{**sample, "labels": sets[i]} for i, sample in enumerate(DATA)]
    model = tiny(num_labels=3)
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=1, eval_strategy="epoch", save_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data, callbacks=[callback]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="xai")
        trainer.train()
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
    got = rows(tmp_path / "run", "eval").sort("sample_id")
    expected = functional.binary_cross_entropy_with_logits(logits, sets, reduction="none").mean(1)
    assert got["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert got["n_wrong"].to_list() == ((logits > 0) != (sets > 0)).sum(1).tolist()
    assert got["label"].to_list() == [[k for k in range(3) if row[k]] for row in sets]


def test_samples_packed_into_one_row_are_told_apart(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
        )
    )  # fmt: skip
    data = [{"sample_id": f"text {i}", "input_ids": TOKENS[i, : 3 + i % 4].tolist()} for i in range(N)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=1, eval_strategy="epoch", save_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4, per_device_eval_batch_size=4,
    )  # fmt: skip
    collator = transformers.DataCollatorWithFlattening()
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data, data_collator=collator,
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
    )  # fmt: skip
    trainer.train()
    assert len(rows(tmp_path / "run", "train")) == N
    got = {row["sample_id"]: row for row in rows(tmp_path / "run", "eval").iter_rows(named=True)}
    model.eval()
    for begin in range(0, N, 4):
        packed = collator(data[begin : begin + 4])
        with torch.no_grad():
            logits = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"]).logits[0]
        at = 0
        for sample in data[begin : begin + 4]:
            tokens = torch.tensor(sample["input_ids"])
            n = len(tokens)
            each = functional.cross_entropy(logits[at : at + n - 1], tokens[1:], reduction="none")
            row = got[sample["sample_id"]]
            assert row["loss"] == pytest.approx(float(each.mean()), abs=1e-5)
            assert row["n_tokens"] == n - 1
            assert row["worst_token"] == int(each.argmax()) + 1
            at += n


def test_every_walk_over_a_stream_is_an_epoch(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter(DATA)

    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), max_steps=10, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, per_device_train_batch_size=4,
    )  # fmt: skip
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = transformers.Trainer(
        model=tiny(), args=arguments, train_dataset=Stream(), eval_dataset=DATA, callbacks=[callback]
    )
    trainer.train()
    train_rows = rows(tmp_path / "run", "train")
    assert train_rows.group_by("epoch").len().sort("epoch").rows() == [(1, N), (2, N), (3, N // 2)]
    assert train_rows.filter(pl.col("epoch") == 3)["step"].unique().sort().to_list() == [9, 10]
    assert train_rows.unique(["epoch", "sample_id"]).height == len(train_rows)
    evaluated = rows(tmp_path / "run", "eval")
    assert evaluated.group_by("epoch", "pass").len().sort("epoch").rows() == [(1, 0, N), (2, 0, N), (3, 0, N)]


class Columns:
    """A dataset whose format shows some of its columns, as one of `datasets` does after `set_format(columns=...)`."""

    def __init__(self, data: list[dict[str, Any]], shown: list[str]) -> None:
        self.data = data
        self.format = {"type": "torch", "columns": shown, "format_kwargs": {}}
        self.column_names = list(data[0])

    def with_format(self, _type: str, columns: list[str]) -> Columns:
        return Columns(self.data, columns)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: self.data[index][name] for name in self.format["columns"]}  # type: ignore[attr-defined]


def _formatted(library: str, shown: list[str]) -> Any:
    data = [{"sample_id": f"s{i:02}", "input_ids": TOKENS[i].tolist(), "labels": int(LABELS[i])} for i in range(N)]
    if library == "stand-in":
        return Columns([{**row, "input_ids": torch.tensor(row["input_ids"])} for row in data], shown)
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    if library == "transformed":  # pictures are read so, and texts spelled
        dataset = datasets.Dataset.from_list(data)
        dataset.set_transform(lambda rows: {"input_ids": rows["input_ids"], "labels": rows["labels"]})
        return dataset
    return datasets.Dataset.from_list(data).with_format("torch", columns=shown)


@pytest.mark.parametrize("library", ["stand-in", "datasets", "transformed"])
@pytest.mark.parametrize("removes", [False, True])
def test_ids_outside_the_format_of_a_dataset_are_kept(library: str, removes: bool, tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    model = tiny()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=4, learning_rate=0.0,
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, remove_unused_columns=removes,
    )  # fmt: skip
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    data = _formatted(library, ["input_ids", "labels"])
    transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback]).train()
    model.eval()
    with torch.no_grad():
        expected = functional.cross_entropy(model(input_ids=TOKENS).logits, LABELS, reduction="none")
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["sample_id"].to_list() == [f"s{i:02}" for i in range(N)]
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_column_of_the_ids_may_be_named(tmp_path: Path) -> None:
    from xaicli.errors import UsageError
    from xaicli.integrations.transformers import XaiCallback

    named = [{"image_id": f"i{row['sample_id']}", **{k: row[k] for k in ("input_ids", "labels")}} for row in DATA]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=8, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, ids="image_id")
    transformers.Trainer(model=tiny(), args=arguments, train_dataset=named, callbacks=[callback]).train()
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["sample_id"].to_list() == [f"i{1000 + i}" for i in range(N)]
    assert found["label"].to_list() == LABELS.tolist()
    with pytest.raises(UsageError, match="dataset's column"):
        XaiCallback(tmp_path / "other", ids=2)


def test_a_callback_added_later_says_that_it_was_not_there(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), per_device_eval_batch_size=8, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(model=tiny(), args=arguments, train_dataset=DATA, eval_dataset=DATA)
    trainer.add_callback(XaiCallback(tmp_path / "run", save_checkpoint=False))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.evaluate()
    said = said_by_xai(caught)
    assert len(said) == 1
    assert "callback.attach(trainer)" in said[0]
    assert xaicli.open_run(tmp_path / "run").info().answer.counts.dropped == N
    told = " ".join(xaicli.open_run(tmp_path / "run").info().answer.warnings)
    assert "sample_id" not in told
    assert "callback.attach(trainer)" in told
    trainer.evaluate()
    assert len(rows(tmp_path / "run", "eval")) == N
    assert not (tmp_path / "run" / "data" / "mode=train").exists()


def test_answers_without_a_meaning_are_asked_for_with_the_line_to_write(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    spans = [{"sample_id": i, "input_ids": TOKENS[i], "start_positions": 0, "end_positions": 1} for i in range(N)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=8, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transformers.Trainer(
            model=transformers.BertForQuestionAnswering(config), args=arguments, train_dataset=spans,
            callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
        ).train()  # fmt: skip
    said = said_by_xai(caught)
    assert len(said) == 1
    assert "where a span begins and ends" in said[0]
    assert "samples_fn=lambda batch, output" in said[0]
    assert "--" not in said[0]


def line_said(caught: Any) -> Any:
    """The function that a warning says to write."""
    said = [str(one.message) for one in caught if "samples_fn=" in str(one.message)]
    assert len(said) == 1
    written = said[0].split("samples_fn=")[1].split("), with torch.nn.functional as F")[0]
    return eval(written, {"F": functional})  # noqa: S307 - what the user is told to write must run


def recorded_by_line(model: Any, data: list[dict[str, Any]], folder: Path) -> pl.DataFrame:
    """The evaluation's rows of a model that is not recorded without the line it is answered with."""
    from xaicli.integrations.transformers import XaiCallback

    def trained(callback: Any) -> None:
        trainer = transformers.Trainer(
            model=model,
            args=arguments(folder, num_train_epochs=1, eval_strategy="epoch"),
            train_dataset=data,
            eval_dataset=data,
            callbacks=[callback],
        )
        trainer.train()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(XaiCallback(folder / "asked", save_checkpoint=False))
    assert not (folder / "asked" / "data").exists()
    trained(XaiCallback(folder / "run", save_checkpoint=False, samples_fn=line_said(caught)))
    assert set(rows(folder / "run", "train")["sample_id"]) == {one["sample_id"] for one in data}
    return rows(folder / "run", "eval").sort("sample_id")


def test_answers_that_are_spans_are_asked_for_with_a_line_that_records_them(tmp_path: Path) -> None:
    model = transformers.BertForQuestionAnswering(tiny().config)
    data = [
        {"sample_id": i, "input_ids": TOKENS[i], "start_positions": i % 6, "end_positions": 9 if i % 5 == 0 else i % 6}
        for i in range(N)
    ]
    got = recorded_by_line(model, data, tmp_path)
    model.eval()
    with torch.no_grad():
        found = model(input_ids=TOKENS)
    begins, ends = (torch.tensor([one[f"{side}_positions"] for one in data]) for side in ("start", "end"))
    begun = functional.cross_entropy(found.start_logits, begins, reduction="none")
    is_inside = ends < 6  # where the text was cut before its end, that adds nothing
    ended = functional.cross_entropy(found.end_logits, torch.where(is_inside, ends, 0), reduction="none") * is_inside
    assert got["loss"].to_list() == pytest.approx(((begun + ended) / 2).tolist(), abs=1e-5)


def test_pictures_of_classes_of_another_size_are_asked_for_with_a_line_that_records_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            num_encoder_blocks=1, depths=[1], sr_ratios=[1], hidden_sizes=[8], num_attention_heads=[1], patch_sizes=[3],
            strides=[2], mlp_ratios=[1], decoder_hidden_size=8, num_labels=2, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, drop_path_rate=0.0, classifier_dropout_prob=0.0,
        )
    )  # fmt: skip
    pictures = torch.randn(6, 3, 8, 8)
    truth = (pictures[:, 0] > 0).long()
    truth[0, :4] = truth[1:, 0, 0] = 255
    data = [{"sample_id": i, "pixel_values": pictures[i], "labels": truth[i]} for i in range(6)]
    got = recorded_by_line(model, data, tmp_path)
    model.eval()
    with torch.no_grad():
        scores = functional.interpolate(model(pixel_values=pictures).logits, size=(8, 8), mode="bilinear")
    each = functional.cross_entropy(scores, truth, reduction="none", ignore_index=255)
    expected = torch.stack([one[known].mean() for one, known in zip(each, truth != 255, strict=True)])
    assert got["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(got) == 6


def test_a_model_that_the_trainer_compiles_is_recorded(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    model = tiny()
    trainer = transformers.Trainer(
        model=model,
        args=arguments(
            tmp_path, num_train_epochs=1, eval_strategy="epoch", torch_compile=True, torch_compile_backend="eager"
        ),
        train_dataset=DATA,
        eval_dataset=DATA,
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
    )
    trainer.train()
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
    got = rows(tmp_path / "run", "eval").sort("sample_id")
    expected = functional.cross_entropy(logits, LABELS, reduction="none")
    assert got["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(rows(tmp_path / "run", "train")) == N


def test_a_collator_that_reorders_keeps_each_sample_s_own_answers(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def longest_first(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ordered = sorted(samples, key=lambda one: -len(one["input_ids"]))
        widest = len(ordered[0]["input_ids"])
        filled = [[*one["input_ids"], *[0] * (widest - len(one["input_ids"]))] for one in ordered]
        return {
            "input_ids": torch.tensor(filled),
            "attention_mask": (torch.tensor(filled) > 0).long(),
            "labels": torch.tensor([one["labels"] for one in ordered]),
        }

    texts = [TOKENS[i, : 2 + i % 5].tolist() for i in range(N)]
    data = [{"sample_id": f"t{i}", "input_ids": text, "labels": i % 2} for i, text in enumerate(texts)]
    model = tiny()
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, num_train_epochs=1, learning_rate=0.0, eval_strategy="epoch"),
        train_dataset=data,
        eval_dataset=data,
        data_collator=longest_first,
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
    )
    trainer.train()
    model.eval()
    for mode in ("train", "eval"):
        got = rows(tmp_path / "run", mode)
        assert sorted(got["sample_id"]) == sorted(one["sample_id"] for one in data)
        for row in got.iter_rows(named=True):
            i = int(row["sample_id"][1:])
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([texts[i]])).logits
            assert row["label"] == i % 2
            assert row["loss"] == pytest.approx(
                float(functional.cross_entropy(logits, torch.tensor([i % 2]))), abs=1e-5
            )


def test_whose_a_row_is_is_told_by_what_stands_in_both() -> None:
    from xaicli.integrations.collators import IdsBesideCollator
    from xaicli.integrations.order import Order, order_in

    texts = [[5, 6], [5, 6, 7], [9], [4, 4, 4, 4]]
    samples = [{"sample_id": i, "input_ids": text, "labels": i % 2} for i, text in enumerate(texts)]

    def batch(order: list[int], *, masks: bool = False, flips: bool = False) -> dict[str, torch.Tensor]:
        chosen = [samples[i] for i in order]
        tokens = torch.tensor([[*one["input_ids"], *[0] * (4 - len(one["input_ids"]))] for one in chosen])
        tokens[:, 0] = 3 if masks else tokens[:, 0]
        labels = [1 - one["labels"] if flips else one["labels"] for one in chosen]
        return {"labels": torch.tensor(labels), "input_ids": tokens}

    assert order_in(samples, batch([3, 1, 0, 2])) == Order((3, 1, 0, 2), is_other=True)
    assert order_in(samples, batch([0, 1, 2, 3], flips=True)) == Order((0, 1, 2, 3))  # noisy labels on purpose
    assert (
        order_in(samples, batch([0, 1, 2, 3], masks=True)) == Order()
    )  # in order as it seems; rows 0 and 2 may be either
    assert order_in(samples, batch([3, 2, 1, 0], masks=True)) == Order(
        is_other=True
    )  # by the labels, and no more is known
    twice = [*samples[:1] * 2, samples[3]]
    tokens = torch.tensor([[4, 4, 4, 4], [5, 6, 0, 0], [5, 6, 0, 0]])
    assert order_in(twice, {"input_ids": tokens}) == Order((2, 0, 1), is_other=True)
    of_one = [{"labels": [i]} for i in (2, 0, 1)]
    assert order_in(of_one, {"labels": torch.tensor([2, 0, 1])}) == Order((0, 1, 2))
    assert order_in(of_one, {"labels": torch.tensor([0, 1, 2])}) == Order((1, 2, 0), is_other=True)
    of_kind = [{"kind": i} for i in (2, 0, 1)]  # what has another's name is compared with that alone
    with_both = [{**one, **kind} for one, kind in zip(of_one, reversed(of_kind), strict=True)]
    assert order_in(with_both, {"labels": torch.tensor([2, 0, 1]), "kind": torch.tensor([1, 0, 2])}).places == (0, 1, 2)
    collate = IdsBesideCollator(lambda _: batch([3, 2, 1, 0], masks=True), ("sample_id",))
    assert "another order" in collate(samples)["sample_id"]


def test_an_evaluation_that_generates_has_the_losses_of_its_labels(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=30, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=0, initializer_factor=2.0,
        )
    )  # fmt: skip
    tokens = torch.randint(1, 30, (8, 6), generator=torch.Generator().manual_seed(1))
    labels = tokens.flip(1).clone()
    labels[3, 4:] = -100
    data = [{"sample_id": i, "input_ids": tokens[i], "labels": labels[i]} for i in range(8)]
    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=transformers.Seq2SeqTrainingArguments(
            output_dir=str(tmp_path / "out"), per_device_eval_batch_size=3, report_to=[], use_cpu=True,
            disable_tqdm=True, predict_with_generate=True, generation_max_length=5,
        ),
        eval_dataset=data,
        compute_metrics=lambda found: {"n": len(found.predictions)},
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False, keep_inputs=0)],
    )  # fmt: skip
    assert trainer.evaluate()["eval_n"] == 8
    trainer.predict(data)
    assert not model._forward_hooks
    with torch.no_grad():
        logits = model.eval()(input_ids=tokens, labels=labels).logits
    expected = [float(functional.cross_entropy(logits[i], labels[i], ignore_index=-100)) for i in range(8)]
    for mode in ("eval", "test"):
        got = rows(tmp_path / "run", mode).sort("sample_id")
        assert got["loss"].to_list() == pytest.approx(expected, abs=1e-4)
        assert got["n_tokens"].to_list() == [6, 6, 6, 4, 6, 6, 6, 6]


def test_a_conditional_model_without_a_decoder_has_the_losses_of_the_next_tokens(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = transformers.LlamaConfig(**sizes, vocab_size=30, num_key_value_heads=2, max_position_embeddings=16)
    seen = transformers.CLIPVisionConfig(**sizes, image_size=8, patch_size=4)
    model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(text_config=text, vision_config=seen))
    tokens = torch.randint(1, 30, (4, 6), generator=torch.Generator().manual_seed(1))
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(str(tmp_path / "out"), report_to=[], use_cpu=True, disable_tqdm=True),
        eval_dataset=[{"sample_id": i, "input_ids": tokens[i], "labels": tokens[i]} for i in range(4)],
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False, keep_inputs=0)],
    )  # fmt: skip
    trainer.evaluate()
    with torch.no_grad():
        expected = [float(model.eval()(input_ids=one[None], labels=one[None]).loss) for one in tokens]
    got = rows(tmp_path / "run", "eval").sort("sample_id")
    assert got["loss"].to_list() == pytest.approx(expected, abs=1e-4)
    assert got["n_tokens"].to_list() == [5] * 4


def by_text(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Texts become ids of tokens in the collator, which puts them in an order of its own."""
    return as_texts(sorted(samples, key=lambda one: str(one["text"])))


def as_texts(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    said = [[int(word) for word in one["text"].split()] for one in samples]
    return {"input_ids": torch.tensor(said), "labels": torch.tensor([int(one["kind"] == "high") for one in samples])}


def with_ids(samples: list[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(samples, key=lambda one: str(one["text"]))
    return {**as_texts(ordered), "sample_id": [one["sample_id"] for one in ordered]}


@pytest.mark.parametrize(
    ("collate", "options", "said", "is_known"),
    [
        (by_text, {}, "as many of each label", False),
        (as_texts, {}, "taken to be in the order", True),
        (as_texts, {"keeps_order": False}, "keeps_order=False says", False),
        (as_texts, {"keeps_order": True}, "", True),
        (with_ids, {}, "", True),
    ],
)
def test_an_order_that_nothing_in_a_batch_shows_is_the_samples_own_and_that_is_said(
    tmp_path: Path, collate: Any, options: dict[str, Any], said: str, is_known: bool
) -> None:
    from xaicli.integrations.transformers import XaiCallback

    data = [
        {"sample_id": f"t{i:02}", "text": " ".join(map(str, TOKENS[i].tolist())), "kind": ("low", "high")[LABELS[i]]}
        for i in range(N)
    ]
    model = tiny()
    given = arguments(tmp_path, num_train_epochs=1, learning_rate=0.0, remove_unused_columns=False)
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transformers.Trainer(
            model=model, args=given, train_dataset=data, data_collator=collate, callbacks=[callback]
        ).train()
    told = [text for one in caught if (text := str(one.message)).startswith("xai:") and "ids are texts" not in text]
    assert [said in one for one in told] == ([True] if said else [])
    if not is_known:
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        return
    model.eval()
    with torch.no_grad():
        expected = functional.cross_entropy(model(input_ids=TOKENS).logits, LABELS, reduction="none")
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["sample_id"].to_list() == [f"t{i:02}" for i in range(N)]
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_collator_that_takes_out_what_it_reads_is_told_after_what_it_was_given() -> None:
    from xaicli.integrations.collators import UNSHOWN, IdsBesideCollator

    def taking(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ordered = sorted(samples, key=lambda one: -len(one["input_ids"]))
        labels = torch.tensor([one.pop("labels") for one in ordered])
        ids = [torch.tensor(one.pop("input_ids")) for one in ordered]
        return {"labels": labels, "input_ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)}

    samples = [{"sample_id": i, "input_ids": [i + 1] * (i + 1), "labels": i % 2} for i in range(4)]
    assert IdsBesideCollator(taking, ("sample_id",))(samples)["sample_id"].tolist() == [3, 2, 1, 0]
    assert set(samples[0]) == {"sample_id", "input_ids", "labels"}

    def hiding(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "x": torch.tensor([0.5 * len(one["input_ids"]) for one in samples]),
            "labels": torch.zeros(len(samples)),
        }

    assert IdsBesideCollator(hiding, ("sample_id",), False)(samples)["sample_id"] == UNSHOWN
    unsaid = IdsBesideCollator(hiding, ("sample_id",))
    assert unsaid(samples)["sample_id"].tolist() == [0, 1, 2, 3]
    assert ["keeps_order" in one for one, _ in unsaid.seen.notes] == [True]


def test_what_a_collator_does_with_one_set_says_nothing_of_another(tmp_path: Path) -> None:
    """Rows of the evaluation stand in an order of their own, and those of the training do not."""
    from xaicli.integrations.transformers import XaiCallback

    def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        made = samples if samples[0]["part"] == "train" else sorted(samples, key=lambda one: -len(one["text"].split()))
        numbers = [[int(word) for word in one["text"].split()] for one in made]
        wide = max(map(len, numbers))
        tokens = torch.tensor([[*row, *[0] * (wide - len(row))] for row in numbers])
        return {"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": torch.zeros(len(made)).long()}

    texts = [TOKENS[i, : 2 + (i * 3) % 4].tolist() for i in range(N)]
    sets = {
        part: [{"sample_id": i, "part": part, "text": " ".join(map(str, text))} for i, text in enumerate(texts)]
        for part in ("train", "eval")
    }
    model = tiny()
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = transformers.Trainer(
        model=model,
        args=arguments(
            tmp_path, num_train_epochs=1, learning_rate=0.0, remove_unused_columns=False, eval_strategy="epoch"
        ),
        train_dataset=sets["train"], eval_dataset=sets["eval"], data_collator=collate, callbacks=[callback],
    )  # fmt: skip
    told = said_of(trainer.train)
    assert ["taken to be in the order" in one for one in told] == [True, False]
    assert "order of their lengths" in told[1]
    assert rows(tmp_path / "run", "eval").is_empty()
    model.eval()
    with torch.no_grad():
        expected = [
            float(functional.cross_entropy(model(input_ids=torch.tensor([t])).logits, torch.tensor([0]))) for t in texts
        ]
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["loss"].to_list() == pytest.approx(expected, abs=1e-5)
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N


def test_a_collator_that_leaves_samples_out_is_told_of_as_such(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def without(samples: list[dict[str, Any]], makes: Any) -> dict[str, torch.Tensor]:
        return makes([one for one in samples if one["n"] % 5 != 0])  # type: ignore[no-any-return]

    def same(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "input_ids": torch.stack([one["input_ids"] for one in samples]),
            "labels": torch.tensor([one["labels"] for one in samples]),
        }

    def changed(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"input_ids": same(samples)["input_ids"].flip(1), "labels": torch.ones(len(samples)).long()}

    data = [{**one, "n": i} for i, one in enumerate(DATA)]
    for name, makes in (("same", same), ("changed", changed)):
        folder, model = tmp_path / name, tiny()
        callback = XaiCallback(folder / "run", save_checkpoint=False)
        trainer = transformers.Trainer(
            model=model, args=arguments(folder, num_train_epochs=1, learning_rate=0.0, remove_unused_columns=False),
            train_dataset=data, data_collator=partial(without, makes=makes), callbacks=[callback],
        )  # fmt: skip
        told = said_of(trainer.train)
        kept = [i for i in range(N) if i % 5 != 0]
        if makes is same:
            assert told == []
            model.eval()
            with torch.no_grad():
                expected = functional.cross_entropy(
                    model(input_ids=TOKENS[kept]).logits, LABELS[kept], reduction="none"
                )
            found = rows(folder / "run", "train").sort("sample_id")
            assert found["sample_id"].to_list() == [1000 + i for i in kept]
            assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
        else:
            assert ["more or fewer rows" in one for one in told if "taken to be" not in one] == [True]
            assert xaicli.open_run(folder / "run").reader().counts().dropped > 0


def test_rows_that_may_be_of_several_samples_are_of_none() -> None:
    """A mask and a label that samples share do not tell them apart where their tokens were changed."""
    from xaicli.integrations.collators import REORDERED, IdsBesideCollator

    def turned(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        own = samples[::-1]
        made = {name: torch.tensor([one[name] for one in own]) for name in ("attention_mask", "labels")}
        return {**made, "input_ids": torch.tensor([one["input_ids"][::-1] for one in own])}

    samples = [
        {"sample_id": i, "input_ids": [i, i + 1, 7], "attention_mask": [1, 1, 1], "labels": i // 2} for i in range(4)
    ]
    assert IdsBesideCollator(turned, ("sample_id",))(samples)["sample_id"] == REORDERED
    alike = [{**one, "input_ids": [5, 6, 7]} for one in samples]
    found = IdsBesideCollator(turned, ("sample_id",))(alike)["sample_id"].tolist()
    assert [sorted(found[:2]), sorted(found[2:])] == [[2, 3], [0, 1]]  # twins but for their ids


@pytest.mark.parametrize("missing", [None, math.nan, "no key"])
@pytest.mark.parametrize("lacking", [(0, 3), (2,)])
def test_samples_without_an_id_end_no_collator(missing: Any, lacking: tuple[int, ...]) -> None:
    from xaicli.integrations.collators import IdsBesideCollator

    samples: list[dict[str, Any]] = [
        {"sample_id": float(10 + i), "input_ids": [i, i + 1], "labels": 0} for i in range(4)
    ]
    for place in lacking:
        samples[place]["sample_id"] = missing
        if missing == "no key":
            del samples[place]["sample_id"]
    batch = IdsBesideCollator(transformers.default_data_collator, ("sample_id",))(samples)
    assert batch["input_ids"].tolist() == [one["input_ids"] for one in samples]
    assert batch["sample_id"] == [None if i in lacking else 10 + i for i in range(4)]
    none = [
        {name: value for name, value in one.items() if name != "sample_id"} | {"sample_id": None} for one in samples
    ]
    assert set(IdsBesideCollator(transformers.default_data_collator, ("sample_id",))(none)) == {"input_ids", "labels"}


def test_ids_as_pandas_has_them_beside_missing_ones(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    data = [
        {"sample_id": math.nan if i in (3, 9) else float(100 + i), "input_ids": TOKENS[i], "labels": LABELS[i]}
        for i in range(N)
    ]
    said = arguments(tmp_path, num_train_epochs=1, learning_rate=0.0)
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.Trainer(model=tiny(), args=said, train_dataset=data, callbacks=[callback]).train()
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["sample_id"].to_list() == [100 + i for i in range(N) if i not in (3, 9)]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == 2


def test_a_row_without_an_id_costs_itself_alone(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    for without in ({3}, {0, 5, 6}, set(range(N))):
        data = [{**one, "sample_id": None if i in without else f"r{i:02}"} for i, one in enumerate(DATA)]
        folder = tmp_path / str(len(without))
        callback = XaiCallback(folder / "run", save_checkpoint=False)
        said = arguments(folder, num_train_epochs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers.Trainer(model=tiny(), args=said, train_dataset=data, callbacks=[callback]).train()
        kept = [f"r{i:02}" for i in range(N) if i not in without]
        assert xaicli.open_run(folder / "run").reader().counts().dropped == len(without)
        if kept:
            assert sorted(rows(folder / "run", "train")["sample_id"]) == kept


def test_an_own_loss_says_that_one_number_is_yes_or_no(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Judging(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = functional.binary_cross_entropy_with_logits(outputs.logits[:, 0], labels.float())
            return (loss, outputs) if return_outputs else loss

    model = tiny(num_labels=1)
    said = arguments(tmp_path, num_train_epochs=1, learning_rate=0.0, eval_strategy="epoch")
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    Judging(model=model, args=said, train_dataset=DATA, eval_dataset=DATA, callbacks=[callback]).train()
    model.eval()
    with torch.no_grad():
        scores = model(input_ids=TOKENS).logits[:, 0]
    expected = functional.binary_cross_entropy_with_logits(scores, LABELS.float(), reduction="none")
    for mode in ("train", "eval"):
        found = rows(tmp_path / "run", mode).sort("sample_id")
        assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
        assert found["prediction"].to_list() == (scores > 0).long().tolist()
        assert found["label"].to_list() == LABELS.tolist()


@pytest.mark.parametrize("says", ["compute_loss", "compute_loss_func"])
def test_an_own_loss_says_that_each_label_is_for_itself(tmp_path: Path, says: str) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def judged(outputs: Any, labels: Any, **_others: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(outputs.logits, labels)

    class Judging(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = judged(outputs, labels)
            return (loss, outputs) if return_outputs else loss

    sets = torch.tensor([[float(i >> bit & 1) for bit in range(3)] for i in range(N)])
    data = [{**one, "labels": sets[i]} for i, one in enumerate(DATA)]
    model = tiny(num_labels=3)
    said = arguments(tmp_path, num_train_epochs=1, learning_rate=0.0)
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = Judging if says == "compute_loss" else transformers.Trainer
    own = {"compute_loss_func": judged} if says == "compute_loss_func" else {}
    trainer(model=model, args=said, train_dataset=data, callbacks=[callback], **own).train()
    model.eval()
    with torch.no_grad():
        scores = model(input_ids=TOKENS).logits
    expected = functional.binary_cross_entropy_with_logits(scores, sets, reduction="none").mean(1)
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert found["label"].to_list() == [row.nonzero().flatten().tolist() for row in sets]


@pytest.mark.parametrize("labels", [[i % 4 < 2 for i in range(N)], [True] * N], ids=["labels", "one label"])
@pytest.mark.parametrize("way", ["given", "given and returned", "returned", "given and changed"])
def test_answers_in_another_order_are_recorded_for_their_samples_or_asked_about(
    tmp_path: Path, way: str, labels: list[bool]
) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Turning(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            is_given = way.startswith("given")
            turned = {name: value.flip(0) for name, value in inputs.items()} if is_given else dict(inputs)
            if way.endswith("changed"):
                turned["input_ids"] = turned["input_ids"].clamp(min=3)
            outputs = model(**turned)
            loss = functional.cross_entropy(outputs.logits, turned["labels"])
            if way.endswith("returned"):
                outputs = {"loss": loss, "logits": outputs.logits.flip(0)}
            return (loss, outputs) if return_outputs else loss

    data = [{**one, "labels": int(labels[i])} for i, one in enumerate(DATA)]  # turned, no batch has the same labels
    said = arguments(tmp_path, num_train_epochs=1, learning_rate=0.0, eval_strategy="epoch")
    callback, model = XaiCallback(tmp_path / "run", save_checkpoint=False, keep_inputs=N), tiny()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Turning(model=model, args=said, train_dataset=data, eval_dataset=data, callbacks=[callback])
        trainer.evaluate()
    told = [str(one.message) for one in caught]
    asked = sum("let it return its outputs in the batch's order" in one for one in told)
    assert sum("taken to be in the batch's order" in one for one in told) == int(
        way.endswith("changed") and all(labels)
    )
    if way.endswith("changed") and not all(labels):
        assert asked == 1
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        return
    assert not asked
    if way.endswith("changed"):
        return  # with labels of one kind nothing tells it, and that is said
    model.eval()
    with torch.no_grad():
        truth = torch.tensor([one["labels"] for one in data])
        expected = functional.cross_entropy(model(input_ids=TOKENS).logits, truth, reduction="none")
    found = rows(tmp_path / "run", "eval").sort("sample_id")
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert found["label"].to_list() == truth.tolist()


def test_a_loader_of_ones_own_without_ids_is_told_what_a_trainer_s_user_can_do(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    data = [{name: value for name, value in one.items() if name != "sample_id"} for one in DATA]

    class Loading(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(data, batch_size=4, collate_fn=transformers.default_data_collator)

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = Loading(model=tiny(), args=arguments(tmp_path), train_dataset=data, callbacks=[callback])
    said = said_of(trainer.train)
    assert ["column sample_id" in one and "(id, input, label)" not in one for one in said] == [True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N


def test_predictions_are_tests_whatever_their_prefix(tmp_path: Path) -> None:
    """The way in says the mode: `run_glue` and its kin predict with the prefix "predict"."""
    from xaicli.integrations.transformers import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = transformers.Trainer(model=tiny(), args=arguments(tmp_path), eval_dataset=DATA, callbacks=[callback])
    for rows_given, prefix in ((8, "predict"), (7, "eval"), (6, "hold"), (5, "test_a"), (4, "predict_b"), (3, "test")):
        trainer.predict(DATA[:rows_given], metric_key_prefix=prefix)
    for rows_given, prefix in ((9, "eval"), (10, "hold"), (11, "eval_day"), (2, "predict"), (1, "test_late")):
        trainer.evaluate(DATA[:rows_given], metric_key_prefix=prefix)
    found = pl.read_parquet(tmp_path / "run" / "data").group_by("mode", "ds_id", "pass").len().rows()
    assert sorted(found) == [
        ("eval", "", 0, 9),
        ("eval", "day", 0, 11),
        ("eval", "hold", 0, 10),
        ("eval", "predict", 0, 2),
        ("test", "", 0, 8),
        ("test", "", 1, 3),
        ("test", "a", 0, 5),
        ("test", "b", 0, 4),
        ("test", "eval", 0, 7),
        ("test", "hold", 0, 6),
        ("test", "late", 0, 1),
    ]


class Pair(torch.nn.Module):
    """A classifier of the first token; `seen` are the ids that it was given, where it takes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Embedding(20, 2)
        self.seen: list[Any] = []

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> dict[str, torch.Tensor]:
        del attention_mask
        logits = self.net(input_ids[:, 0])
        return (
            {"logits": logits}
            if labels is None
            else {"loss": functional.cross_entropy(logits, labels), "logits": logits}
        )


class Remembering(Pair):
    """The same, with a memory of each sample."""

    def forward(  # type: ignore[override]
        self, input_ids: Any, attention_mask: Any = None, labels: Any = None, sample_id: Any = None
    ) -> dict[str, torch.Tensor]:
        self.seen.append(None if sample_id is None else sample_id.tolist())
        return super().forward(input_ids, attention_mask, labels)


class Placed(Pair):
    """The same, of ids by another name."""

    def forward(  # type: ignore[override]
        self, input_ids: Any, attention_mask: Any = None, labels: Any = None, image_id: Any = None
    ) -> dict[str, torch.Tensor]:
        self.seen.append(None if image_id is None else image_id.tolist())
        return super().forward(input_ids, attention_mask, labels)


def bare(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A collator that returns no ids."""
    names = ("input_ids", "attention_mask", "labels")
    return {name: torch.stack([torch.as_tensor(one[name]) for one in samples]) for name in names}


def trained_twice(folder: Path, model: Any, trainer: Any, data: Any, **options: Any) -> list[Any]:
    """What a model and a trainer saw without the callback and with it, and the weights; the run is at folder/run."""
    from xaicli.integrations.transformers import XaiCallback

    found, given = [], {"ids": options.pop("ids")} if "ids" in options else {}
    collator = {"data_collator": options.pop("data_collator")} if "data_collator" in options else {}
    for callback in (None, XaiCallback(folder / "run", save_checkpoint=False, **given)):
        trainer.seen = []
        net = model()
        args = arguments(folder, num_train_epochs=1, eval_strategy="epoch", **options)
        trainer(
            model=net, args=args, train_dataset=data, eval_dataset=data, callbacks=[callback] if callback else [],
            **collator,
        ).train()  # fmt: skip
        found.append((net.seen if hasattr(net, "seen") else None, trainer.seen, net.state_dict()))
    return found


TAKES: dict[str, Any] = {
    "pop": lambda inputs: inputs.pop("sample_id"),
    "get": lambda inputs: inputs["sample_id"],
    "pop or none": lambda inputs: inputs.pop("sample_id", None),
    "copy": lambda inputs: dict(inputs)["sample_id"],
    "names": lambda inputs: torch.tensor([name == "sample_id" for name in inputs]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_own_step", [False, True])
@pytest.mark.parametrize("way", TAKES)
def test_a_compute_loss_reads_the_ids_of_its_batch_as_without_the_callback(
    way: str, is_own_step: bool, tmp_path: Path
) -> None:
    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        seen: Any = None

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            ids = TAKES[way](inputs)
            type(self).seen.append(None if ids is None else ids.tolist())
            labels = inputs.pop("labels")
            outputs = model(input_ids=inputs["input_ids"])
            loss = functional.cross_entropy(outputs["logits"], labels)
            return (loss, outputs) if return_outputs else loss

    class Stepping(Own):
        def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            type(self).seen.append(inputs["sample_id"].tolist())
            return super().prediction_step(model, inputs, *args, **kwargs)

    own = Stepping if is_own_step else Own
    alone, beside = trained_twice(tmp_path, Pair, own, DATA, remove_unused_columns=False)
    assert beside[1] == alone[1]
    assert all(torch.equal(value, beside[2][name]) for name, value in alone[2].items())
    for mode in ("train", "eval"):
        got = rows(tmp_path / "run", mode).sort("sample_id")
        assert got["sample_id"].to_list() == [1000 + i for i in range(N)]
        assert got["label"].to_list() == LABELS.tolist()


@pytest.mark.filterwarnings("ignore")
def test_a_compute_loss_that_hands_its_whole_batch_on_keeps_the_ids_from_the_model(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(**inputs)
            return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    model = Pair()
    args = arguments(tmp_path, num_train_epochs=1, eval_strategy="epoch", remove_unused_columns=False)
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    Own(model=model, args=args, train_dataset=DATA, eval_dataset=DATA, callbacks=[callback]).train()
    assert not model._forward_pre_hooks
    for mode in ("train", "eval"):
        assert sorted(rows(tmp_path / "run", mode)["sample_id"]) == [1000 + i for i in range(N)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("collator", [None, bare])
@pytest.mark.parametrize("removes", [True, False])
@pytest.mark.parametrize(("model", "name"), [(Remembering, None), (Remembering, "sample_id"), (Placed, "image_id")])
def test_a_model_that_takes_the_ids_gets_them_as_without_the_callback(
    model: Any, name: str | None, removes: bool, collator: Any, tmp_path: Path
) -> None:
    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        seen: Any = None

    data = [
        {("image_id" if model is Placed else k) if k == "sample_id" else k: v for k, v in one.items()} for one in DATA
    ]
    given: dict[str, Any] = {} if name is None else {"ids": name}
    given |= {} if collator is None else {"data_collator": collator}
    alone, beside = trained_twice(tmp_path, model, Own, data, remove_unused_columns=removes, **given)
    assert beside[0] == alone[0]
    assert (beside[0][0] is None) == (collator is not None)
    for mode in ("train", "eval"):
        got = rows(tmp_path / "run", mode).sort("sample_id")
        assert got["sample_id"].to_list() == [1000 + i for i in range(N)]
        assert got["label"].to_list() == LABELS.tolist()


def popping_trainer(how: str) -> Any:
    """A class of trainers that takes the ids out of a batch before the loss is computed of it."""

    class Popping(transformers.Trainer):  # type: ignore[misc, name-defined]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if how == "_prepare_inputs":
                return super().training_step(model, inputs, *args, **kwargs)
            return super().training_step(model, self.bare(inputs), *args, **kwargs)

        def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = inputs if how == "_prepare_inputs" else self.bare(inputs)
            return super().prediction_step(model, inputs, *args, **kwargs)

        def bare(self, inputs: Any) -> Any:
            inputs.pop("sample_id")
            order = {"sorted": inputs["input_ids"][:, 0].argsort(stable=True), "cut": torch.arange(1, 4)}.get(how)
            return inputs if order is None else {name: part[order] for name, part in inputs.items()}

        def _prepare_inputs(self, inputs: Any) -> Any:
            prepared = super()._prepare_inputs(inputs)
            if how == "_prepare_inputs":
                prepared.pop("sample_id", None)
            return prepared

    return Popping


@pytest.mark.parametrize("how", ["training_step", "_prepare_inputs", "sorted", "cut"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["plain", "samples_fn"])
def test_ids_that_a_step_takes_out_of_its_batch_are_the_samples(how: str, by_hand: bool, tmp_path: Path) -> None:
    """Also where it sorts the batch, or trains on a part of it: rows of equal texts alone could be others'."""
    from xaicli.integrations.transformers import XaiCallback

    def of_samples(batch: Any, output: Any) -> dict[str, Any]:
        losses = functional.cross_entropy(output["logits"], batch["labels"], reduction="none")
        return {"sample_id": batch["sample_id"], "label": batch["labels"], "loss": losses}

    callback = XaiCallback(
        tmp_path / "run", save_checkpoint=False, keep_inputs=0, samples_fn=of_samples if by_hand else None
    )
    model, right = tiny(), {}
    given = arguments(tmp_path, remove_unused_columns=False)
    trainer = popping_trainer(how)(model=model, args=given, train_dataset=DATA, callbacks=[callback])

    def note(_module: Any, _args: Any, kwargs: Any, output: Any) -> None:
        losses = functional.cross_entropy(output["logits"], kwargs["labels"], reduction="none").tolist()
        for row, loss in zip(kwargs["input_ids"], losses, strict=True):
            right[1000 + next(i for i in range(N) if torch.equal(TOKENS[i], row))] = loss

    model.register_forward_hook(note, with_kwargs=True)
    assert said_of(trainer.train) == []
    labels = {1000 + i: int(LABELS[i]) for i in range(N)}
    for mode, cut in (("train", 12), ("eval", 6)):
        found = rows(tmp_path / "run", mode)
        assert len(found) == (cut if how == "cut" else N)
        assert dict(zip(found["sample_id"], found["loss"], strict=True)) == pytest.approx(right, rel=1e-5)
        assert all(labels[one] == label for one, label in zip(found["sample_id"], found["label"], strict=True))
        right.clear()
        if mode == "train":
            trainer.evaluate(DATA)


def test_rows_without_ids_that_are_none_of_the_batch_are_counted(tmp_path: Path) -> None:
    """A step that computes a second loss of texts from elsewhere."""
    from xaicli.integrations.transformers import XaiCallback

    class Beside(transformers.Trainer):  # type: ignore[misc, name-defined]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            own = {"input_ids": torch.arange(24).reshape(4, 6) % 19, "labels": torch.tensor([0, 1, 0, 1])}
            self.compute_loss(model, {**own, "attention_mask": torch.ones(4, 6).long()})
            return super().training_step(model, inputs, *args, **kwargs)

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, keep_inputs=0)
    trainer = Beside(model=tiny(), args=arguments(tmp_path), train_dataset=DATA, callbacks=[callback])
    (said,) = said_of(trainer.train)
    assert "whose of the step's batch they are is not known" in said
    found = rows(tmp_path / "run", "train")
    assert sorted(found["sample_id"]) == [1000 + i for i in range(N)]
    assert callback.run.stats()["rows_dropped"] == N
