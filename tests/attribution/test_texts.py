"""Language models: the next token at the last token of each text, another place, the loss; beside autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from xaicli.checkpoint.load import load_checkpoint
from xaicli.checkpoint.save import save_checkpoint
from xaicli.errors import XaiError

FAST = {"methods": "gradient", "precision": "fp32"}


class Causal(nn.Module):
    """Each token sees itself and those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(20, 8), nn.Linear(8, 20)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = self.words(input_ids) * attention_mask[..., None]
        return self.out(torch.tanh(seen.cumsum(1)))


@pytest.fixture
def texts() -> dict[str, Tensor]:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]])
    return {"input_ids": torch.randint(1, 20, (3, 6)), "attention_mask": mask}


LAST = torch.tensor([5, 2, 5])


def at_embedding(model: nn.Module, words: nn.Module, texts: dict[str, Tensor], scalar: Any) -> Tensor:
    """The gradient at the embedding of the sum of what `scalar` makes of the logits (N, T, V)."""
    kept: list[Tensor] = []
    hook = words.register_forward_hook(lambda _, __, result: kept.append(result))
    result = model(**texts)
    hook.remove()
    logits = result if isinstance(result, Tensor) else result.logits
    return torch.autograd.grad(scalar(logits).sum(), kept[0])[0]


def test_the_next_token_at_the_last_real_place_is_explained(texts: dict[str, Tensor]) -> None:
    model = Causal()
    found = xaicli.saliency(model, texts, task="sequence", **FAST)
    last = model(**texts)[torch.arange(3), LAST]
    assert found.predictions.tolist() == last.argmax(1).tolist() == found.targets.tolist()
    assert np.allclose(found.data["top_prob"], last.softmax(1).amax(1).detach())
    gradient = at_embedding(model, model.words, texts, lambda y: y[torch.arange(3), LAST].amax(1))
    assert np.allclose(found.attributions["gradient"], gradient, atol=1e-6)
    assert any("at the last token that counts of each text, place 2 to 5" in note for note in found.saliency.notes)


def test_a_place_that_is_named(texts: dict[str, Tensor]) -> None:
    model = Causal()
    second = torch.tensor([1, 1, 3])  # the second token of each text, whatever fills it up in front
    found = xaicli.saliency(model, texts, task="sequence", target="7@1", **FAST)
    gradient = at_embedding(model, model.words, texts, lambda y: y[torch.arange(3), second, 7])
    assert np.allclose(found.attributions["gradient"], gradient, atol=1e-6)
    assert found.targets.tolist() == [7, 7, 7]
    assert found.saliency.settings["target"] == "7@1"
    before = xaicli.saliency(model, texts, task="token_classification", target="7@-2", **FAST)
    gradient = at_embedding(model, model.words, texts, lambda y: y[torch.arange(3), LAST - 1, 7])
    assert np.allclose(before.attributions["gradient"], gradient, atol=1e-6)
    with pytest.raises(XaiError, match="sample 1 has no place 3"):
        xaicli.saliency(model, texts, task="sequence", target="predicted@3", **FAST)
    with pytest.raises(XaiError, match="is one token of a text"):
        xaicli.saliency(nn.Linear(4, 3), torch.rand(2, 4), target="predicted@0", **FAST)


def test_labels_at_every_token(texts: dict[str, Tensor]) -> None:
    model = Causal()
    labels = torch.randint(0, 20, (3, 6))
    found = xaicli.saliency(model, texts, task="sequence", target="label", labels=labels.tolist(), **FAST)
    assert found.targets.tolist() == labels[torch.arange(3), LAST].tolist()
    labels[0, :4] = -100
    of_loss = xaicli.saliency(model, texts, task="sequence", target="loss", labels=labels.tolist(), **FAST)

    def loss(logits: Tensor) -> Tensor:
        known = torch.where(texts["attention_mask"].bool(), labels, -100)
        each = nn.functional.cross_entropy(logits.movedim(-1, 1), known, reduction="none", ignore_index=-100)
        return each.sum(1) / (known >= 0).sum(1)

    gradient = at_embedding(model, model.words, texts, loss)
    assert np.allclose(of_loss.attributions["gradient"], gradient, atol=1e-6)
    assert [e.target_name for e in of_loss.saliency.explanations] == ["loss"] * 3
    assert of_loss.targets.tolist() == [-1] * 3
    labels[1, LAST[1]] = -100
    without = xaicli.saliency(model, texts, task="sequence", labels=labels.tolist(), **FAST)
    assert [e.label for e in without.saliency.explanations] == [int(labels[0, 5]), None, int(labels[2, 5])]
    with pytest.raises(XaiError, match="needs the right token at every place"):
        xaicli.saliency(model, texts, task="sequence", target="loss", **FAST)
    with pytest.raises(XaiError, match="loss is of models of texts"):
        xaicli.saliency(nn.Linear(4, 3), torch.rand(2, 4), target="loss", **FAST)


def _gpt2(**given: Any) -> Any:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = hf.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=12, initializer_range=0.5, **given)
    return hf.GPT2LMHeadModel(config).eval()


def test_the_loss_of_a_causal_model_is_its_own(texts: dict[str, Tensor]) -> None:
    model = _gpt2()
    found = xaicli.saliency(model, texts, target="loss", methods="integrated", integrating=300, precision="fp32")
    own = [
        model(input_ids=ids[None], attention_mask=m[None], labels=torch.where(m > 0, ids, -100)[None]).loss.item()
        for ids, m in zip(texts["input_ids"][:2], texts["attention_mask"][:2], strict=True)
    ]
    prepared = found.saliency.explanations
    assert [e.target_name for e in prepared] == ["loss"] * 3
    gradient = xaicli.saliency(model, texts, target="loss", **FAST).attributions["gradient"]

    def loss(logits: Tensor) -> Tensor:
        ids, mask = texts["input_ids"], texts["attention_mask"]
        each = nn.functional.cross_entropy(logits[:, :-1].movedim(-1, 1), ids[:, 1:], reduction="none")
        both = mask[:, 1:] * mask[:, :-1]
        per_text = (each * both).sum(1) / both.sum(1)
        assert np.allclose(per_text[:2].detach(), own, atol=1e-5)
        return per_text

    assert np.allclose(gradient, at_embedding(model, model.transformer.wte, texts, loss), atol=1e-5)
    assert (np.asarray(found.delta["integrated"]) < 0.05).all()


def test_texts_filled_up_without_a_mask_end_before_what_fills_them() -> None:
    model = _gpt2(pad_token_id=0)
    ids = torch.tensor([[5, 6, 7, 8], [5, 9, 0, 0]])
    found = xaicli.saliency(model, {"input_ids": ids}, **FAST)
    logits = model(input_ids=ids).logits
    assert found.predictions.tolist() == [logits[0, 3].argmax().item(), logits[1, 1].argmax().item()]


def test_what_fills_a_text_up_counts_in_no_figure() -> None:
    """Each text of a batch has the maps and figures that it has alone, however long the longest is."""
    torch.manual_seed(3)
    model = Causal()
    with torch.no_grad():
        model.words.weight[0] = 0
    ids = torch.randint(1, 20, (1, 5))
    alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    filled = {name: nn.functional.pad(values, (0, 11)) for name, values in alone.items()}
    how = {"methods": ("smoothgrad", "integrated"), "smoothing": 6, "integrating": (6, 0), "task": "sequence"}
    a, b = (xaicli.saliency(model, given, precision="fp32", **how) for given in (alone, filled))
    for method in how["methods"]:
        assert b.agreement[method] == pytest.approx(a.agreement[method], nan_ok=True)
    assert np.allclose(b.maps["integrated"][..., :5], a.maps["integrated"], atol=1e-5)
    assert (b.maps["integrated"][..., 5:] == 0).all()


def test_a_masked_model_is_asked_at_which_token(texts: dict[str, Tensor], tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = hf.BertForMaskedLM(hf.BertConfig(vocab_size=20, initializer_range=0.5, **sizes)).eval()
    with pytest.raises(XaiError, match="which of them") as told:
        xaicli.saliency(model, texts, **FAST)
    assert "--target predicted@PLACE" in told.value.hint
    found = xaicli.saliency(model, texts, target="predicted@1", **FAST)
    at = torch.tensor([1, 1, 3])
    with torch.no_grad():
        assert found.predictions.tolist() == model(**texts).logits[torch.arange(3), at].argmax(1).tolist()
    save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=texts)
    kept = load_checkpoint(tmp_path / "ckpt.pt").facts
    assert (kept.task, kept.text, kept.pad_token) == ("sequence", "masked", 0)


def test_a_decoder_says_the_token_after_its_last() -> None:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
    model = hf.T5ForConditionalGeneration(hf.T5Config(**sizes)).eval()
    batch = {
        "input_ids": torch.randint(1, 20, (2, 7)),
        "decoder_input_ids": torch.tensor([[0, 4, 5, 6], [0, 7, 8, 9]]),
        "decoder_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    found = xaicli.saliency(model, batch, **FAST)
    with torch.no_grad():
        logits = model(**batch).logits
    assert found.predictions.tolist() == [logits[0, 3].argmax().item(), logits[1, 1].argmax().item()]


def _bart(hf: Any) -> Any:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    return hf.BartForSequenceClassification(
        hf.BartConfig(
            vocab_size=20, d_model=8, encoder_ffn_dim=8, decoder_ffn_dim=8, num_labels=3, init_std=0.5, **sizes, **ends
        )
    )


def _t5(hf: Any) -> Any:
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
    ends = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    return hf.T5ForSequenceClassification(hf.T5Config(**sizes, **ends, num_labels=3))


@pytest.mark.parametrize("build", [_bart, _t5])
def test_ids_that_encoder_and_decoder_both_look_up_are_explained_by_both(build: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    model = build(pytest.importorskip("transformers")).eval()
    ids = torch.randint(3, 20, (3, 5))
    ids[:, -1] = 2
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    kept: list[Tensor] = []
    encoder, decoder = model.get_encoder().embed_tokens, model.get_decoder().embed_tokens
    hooks = [part.register_forward_hook(lambda _, __, rows: kept.append(rows)) for part in {encoder, decoder}]
    logits = model(**batch).logits
    for hook in hooks:
        hook.remove()
    first, second = torch.autograd.grad(logits.amax(1).sum(), kept)
    # The decoder reads the tokens moved on by one: the last one reaches it in no way.
    expected = torch.cat([first, nn.functional.pad(second[:, 1:], (0, 0, 0, 1))], -1)
    found = xaicli.saliency(model, batch, methods=("gradient", "integrated"), integrating=(200, 0), device="cpu")
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(found.attributions["gradient"], expected, atol=1e-6)
    assert np.nanmax(found.delta["integrated"]) < 0.05


def test_labels_that_become_ids_of_a_decoder_are_asked_for_as_such() -> None:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 30}
    model = hf.T5ForConditionalGeneration(hf.T5Config(**sizes, pad_token_id=0, decoder_start_token_id=0)).eval()
    ids, labels = torch.randint(1, 30, (3, 7)), torch.randint(1, 30, (3, 4))
    ignored = labels.clone()
    ignored[1, 2:] = -100
    for given in (labels, ignored):
        with pytest.raises(XaiError, match="the model makes its decoder's ids of them") as raised:
            xaicli.saliency(model, {"input_ids": ids, "labels": given}, **FAST)
        assert "decoder_input_ids" in raised.value.hint
    moved = model.prepare_decoder_input_ids_from_labels(labels=labels)
    found = xaicli.saliency(model, {"input_ids": ids, "decoder_input_ids": moved}, **FAST)
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).logits[:, -1].argmax(1)
    assert found.predictions.tolist() == expected.tolist()


_WORDS = {"vocab_size": 30, "pad_token_id": 0}
_BERT = {**_WORDS, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def _decoder_of_bert(hf: Any) -> Any:
    return hf.BertConfig(**_BERT, max_position_embeddings=16, is_decoder=True, add_cross_attention=True)


def _marian(hf: Any) -> Any:
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 8, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 16}
    return hf.MarianMTModel(hf.MarianConfig(**_WORDS, **layers, **sizes, eos_token_id=1, decoder_start_token_id=0))


def _two_berts(hf: Any) -> Any:
    encoder = hf.BertConfig(**_BERT, max_position_embeddings=16)
    config = hf.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, _decoder_of_bert(hf))
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return hf.EncoderDecoderModel(config=config)


def _read_pictures(hf: Any) -> Any:
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1}
    encoder = hf.ViTConfig(**sizes, **{key: value for key, value in _BERT.items() if key not in _WORDS})
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, _decoder_of_bert(hf))
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return hf.VisionEncoderDecoderModel(config=config)


@pytest.mark.parametrize("task", [None, "sequence"])
@pytest.mark.parametrize("build", [_marian, _two_berts, _read_pictures])
def test_what_continues_texts_by_another_name_is_explained_by_its_next_token(
    build: Callable[[Any], Any], task: str | None
) -> None:
    torch.manual_seed(0)
    model = build(pytest.importorskip("transformers")).eval()
    given: dict[str, Tensor] = {"input_ids": torch.randint(3, 30, (3, 6))}
    if build is _read_pictures:
        given = {"pixel_values": torch.randn(3, 1, 8, 8)}
    labels = torch.randint(3, 30, (3, 4))
    labels[1, 2:] = -100
    moved = model.prepare_decoder_input_ids_from_labels(labels=labels)
    batch, last = {**given, "decoder_input_ids": moved}, torch.tensor([3, 1, 3])

    kept: list[Tensor] = []
    table = model.get_decoder().get_input_embeddings()
    hook = table.register_forward_hook(lambda _, ids, rows: kept.append(rows) if ids[0].shape == moved.shape else None)
    logits = model(**batch).logits
    hook.remove()
    answers = logits[torch.arange(3), last]
    known = labels >= 0
    logs = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    losses = -(logs * known).sum(1) / known.sum(1)
    right = labels[torch.arange(3), last]
    for target, explained in (
        ("predicted", answers.amax(1)),
        ("label", answers[torch.arange(3), right]),
        ("loss", losses),
    ):
        expected = torch.autograd.grad(explained.sum(), kept, retain_graph=True)[0]
        found = xaicli.saliency(
            model, batch, labels=labels, target=target, task=task, methods=("gradient",), device="cpu"
        )
        assert found.predictions.tolist() == answers.argmax(1).tolist()
        assert found.data["label"].to_list() == right.tolist()
        np.testing.assert_allclose(found.attributions["gradient"]["decoder_input_ids"], expected, atol=1e-6)


def test_a_conditional_model_without_a_decoder_continues_what_it_reads() -> None:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = hf.LlamaConfig(**sizes, **_WORDS, num_key_value_heads=2, max_position_embeddings=16)
    seen = hf.CLIPVisionConfig(**sizes, image_size=8, patch_size=4)
    model = hf.LlavaForConditionalGeneration(hf.LlavaConfig(text_config=text, vision_config=seen)).eval()
    ids, labels = torch.randint(3, 30, (3, 6)), torch.randint(3, 30, (3, 6))
    labels[:, :2] = -100
    kept: list[Tensor] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, __, rows: kept.append(rows))
    logits = model(input_ids=ids).logits
    hook.remove()
    losses = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(1) / 4
    expected = torch.autograd.grad(losses.sum(), kept)[0]
    found = xaicli.saliency(model, {"input_ids": ids}, labels=labels, target="loss", methods="gradient", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], expected, atol=1e-6)


class Cut(nn.Module):
    """Texts that are cut to the longest of their batch before they are looked up."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.kind, self.words = kind, nn.Embedding(20, 8, padding_idx=0)
        self.body = nn.LSTM(8, 8, batch_first=True)
        self.conv, self.head = nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 3)

    def columns(self, mask: Tensor) -> Any:
        if self.kind == "any":
            return mask.bool().any(0)
        return slice(int(mask.sum(1).max()))

    def forward(self, ids: Tensor, mask: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        mask = (ids != 0).long() if mask is None else mask
        kept = self.columns(mask)
        return self.of_rows(self.words(ids[:, kept]), mask[:, kept], mask.sum(1))

    def of_rows(self, rows: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        if self.kind == "packed":
            packed = nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.body(packed)[1][0][-1])
        seen = torch.tanh(self.conv((rows * mask[..., None]).transpose(1, 2))).transpose(1, 2)
        return self.head((seen * mask[..., None]).sum(1) / lengths[:, None])

    def wanted(self, ids: Tensor) -> Tensor:
        """Autograd at the embedding of all texts together, 0 where they are cut."""
        mask = (ids != 0).long()
        kept = self.columns(mask)
        rows = self.words(ids[:, kept]).detach().requires_grad_()
        scores = self.of_rows(rows, mask[:, kept], mask.sum(1))
        found = torch.zeros(*ids.shape, 8)
        found[:, kept] = torch.autograd.grad(scores.amax(1).sum(), rows)[0]
        return found


def _filled(*lengths: int, width: int = 7) -> Tensor:
    ids = torch.randint(1, 20, (len(lengths), width), generator=torch.Generator().manual_seed(0))
    return ids * (torch.arange(width) < torch.tensor(lengths)[:, None])


CUT = {
    "of other lengths": _filled(3, 2, 7, 6),
    "the longest in front": _filled(7, 7, 3, 2),
    "shorter than the columns": _filled(5, 2, 4, 3),
    "all of one length": _filled(5, 5, 5),
    "one text": _filled(3),
    "in several chunks": torch.cat([_filled(*[2, 3] * 20), _filled(4, 6), _filled(*[2] * 30)]),
}


@pytest.mark.parametrize(("kind", "given"), [("longest", "ids"), ("any", "mask"), ("packed", "lengths")])
@pytest.mark.parametrize("name", CUT)
def test_texts_that_forward_cuts_to_the_longest_are_explained_where_they_stand(
    name: str, kind: str, given: str
) -> None:
    model, ids = Cut(kind).eval(), CUT[name]
    mask = (ids != 0).long()
    inputs = {"ids": ids} | ({"mask": mask} if given == "mask" else {"lengths": mask.sum(1)} if given != "ids" else {})
    found = xaicli.saliency(model, inputs, methods=("gradient", "smoothgrad"), precision="fp32", device="cpu")
    with torch.no_grad():
        assert found.predictions.tolist() == model(ids).argmax(1).tolist()
    values = found.attributions["gradient"]
    values = values["ids"] if isinstance(values, dict) else values
    np.testing.assert_allclose(values, model.wanted(ids), atol=1e-6)
    longest = int(mask.sum(1).max())
    assert not values[:, longest:].any()
    notes = [note for note in found.answer.warnings if "looked up by no embedding" in note]
    columns = [str(column) for column in range(longest, 7)]
    said = f"column{'s' if len(columns) > 1 else ''} {', '.join(columns)} of ids: looked up by no embedding"
    assert (notes and said in notes[0]) if columns else not notes


def test_texts_filled_up_at_either_side_are_cut_to_the_columns_that_any_of_them_has() -> None:
    model = Cut("any").eval()
    ids = torch.cat([_filled(3, 2, 4), _filled(2, 3).flip(1), _filled(*[2] * 40)])
    found = xaicli.saliency(model, ids, methods="gradient", precision="fp32", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], model.wanted(ids), atol=1e-6)


def test_activations_of_texts_that_were_cut_lie_where_their_tokens_do() -> None:
    class Beside(Cut):
        def forward(self, ids: Tensor, person: Tensor) -> Tensor:  # type: ignore[override]
            mask = (ids != 0).long()
            kept = self.columns(mask)
            return self.of_rows(self.words(ids[:, kept]) + person[:, None], mask[:, kept], mask.sum(1))

    model, ids, person = Beside("longest").eval(), _filled(5, 2, 4, 3), torch.ones(4, 8)
    how: dict[str, Any] = {"methods": "gradcam", "precision": "fp32", "device": "cpu"}
    found = xaicli.saliency(model, {"ids": ids, "person": person}, **how).attributions["gradcam"]["ids"]
    short = xaicli.saliency(model, {"ids": ids[:, :5], "person": person}, **how).attributions["gradcam"]["ids"]
    assert short.any()
    np.testing.assert_allclose(found[:, :5], short, atol=1e-6)
    assert not found[:, 5:].any()


@pytest.mark.parametrize("n", [2, 4, 40])
def test_outputs_that_are_cut_to_the_longest_of_their_batch_are_refused_for_that(n: int) -> None:
    class Tagger(Cut):
        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.tanh(self.words(ids[:, self.columns((ids != 0).long())]))).transpose(1, 2)

    torch.manual_seed(0)
    model = Tagger("longest").eval()
    texts = _filled(*[4] * (n - 1), 7)
    how: dict[str, Any] = {"methods": "gradient", "precision": "fp32", "task": "token_classification"}
    with pytest.raises(XaiError, match=r"of shape \(3, 4\) or \(3, 7\), by the samples beside it") as refused:
        xaicli.saliency(model, texts, **how)
    assert "texts of one length at a time" in str(refused.value.hint)
    found = xaicli.saliency(model, texts[: n - 1], target="predicted@2", **how).predictions
    assert found.tolist() == model(texts[: n - 1])[..., 2].argmax(1).tolist()
