"""What a transformers callback keeps of two texts, an encoder's and a decoder's: `xai saliency` needs no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xaicli.cli import main

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")

N = 6
_SIZES: dict[str, Any] = {
    "vocab_size": 20, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 32,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "init_std": 0.5,
    "scale_embedding": False,
}  # fmt: skip


def t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=1, initializer_factor=2.0,
        )
    )  # fmt: skip


def bart() -> Any:
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**_SIZES))


def m2m() -> Any:
    """It has no method that makes the decoder's ids; its module has a function."""
    return transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**_SIZES))


@pytest.mark.parametrize("build", [t5, bart, m2m])
def test_the_ids_that_a_model_makes_of_its_labels_are_kept_and_explained_as_its_own(
    build: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, rng = build(), torch.Generator().manual_seed(1)
    tokens, labels = (torch.randint(3, 20, (N, n), generator=rng) for n in (7, 5))
    mask = torch.ones_like(tokens)
    for row, (read, said) in enumerate([(7, 5), (5, 3), (7, 4), (6, 5), (7, 2), (4, 5)]):
        tokens[row, read:], mask[row, read:], labels[row, said:] = model.config.pad_token_id, 0, -100
    names = ("input_ids", "attention_mask", "labels")
    data = [
        {"sample_id": 10 + i, **dict(zip(names, each, strict=True))}
        for i, each in enumerate(zip(tokens, mask, labels, strict=True))
    ]
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=3, report_to=[],
            use_cpu=True, disable_tqdm=True, eval_strategy="epoch", save_strategy="no", learning_rate=1e-2,
        ),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[XaiCallback(tmp_path / "run")],
    )  # fmt: skip
    trainer.train()
    capsys.readouterr()
    ckpt = tmp_path / "run" / "checkpoints" / "ckpt.pt"
    model.eval()
    last = (labels >= 0).sum(1) - 1
    every = torch.arange(N)

    def expected(explained: Any) -> list[Tensor]:
        looked_up: list[Tensor] = []
        tables = {model.get_encoder().embed_tokens, model.get_decoder().embed_tokens}
        hooks = [table.register_forward_hook(lambda _, __, rows: looked_up.append(rows)) for table in tables]
        logits = model(input_ids=tokens, attention_mask=mask, labels=labels).logits
        for hook in hooks:
            hook.remove()
        return list(torch.autograd.grad(explained(logits.log_softmax(-1), logits).sum(), looked_up))

    def loss(logs: Tensor, _: Tensor) -> Tensor:
        right = logs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return -(right * (labels >= 0)).sum(1) / (labels >= 0).sum(1)

    wanted = {
        "predicted": lambda _, logits: logits[every, last].amax(1),
        "label": lambda _, logits: logits[every, last, labels[every, last]],
        "loss": loss,
    }
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=mask, labels=labels).logits[every, last]
    for target, explained in wanted.items():
        out = tmp_path / target
        arguments = ["saliency", "--model", str(ckpt), "--samples", str(N), "--pick", "first", "--target", target]
        assert main([*arguments, "--methods", "gradient", "--device", "cpu", "--json", "-o", str(out)]) == 0
        answer = json.loads(capsys.readouterr().out)
        order = [row["sample_id"] - 10 for row in answer["rows"]]
        assert sorted(order) == list(range(N))
        assert [row["label"] for row in answer["rows"]] == labels[every, last][order].tolist()
        assert [row["prediction"] for row in answer["rows"]] == logits.argmax(1)[order].tolist()
        sure = logits.softmax(1)[every, labels[every, last]]
        np.testing.assert_allclose([row["label_prob"] for row in answer["rows"]], sure[order], rtol=1e-4)
        found = np.load(out / "maps.npz")
        of_both = [found[f"attribution/gradient/{name}"] for name in ("input_ids", "decoder_input_ids")]
        for got, right in zip(of_both, expected(explained), strict=True):
            np.testing.assert_allclose(got, right[order], atol=2e-5 * float(right.abs().max()))
