"""Small models of the common architectures, each with inputs and with the tensor its attributions are taken at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Inputs = Tensor | list[Tensor] | dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A model and how it is asked.

    Attributes:
        model: In evaluation mode.
        inputs: What it is called with.
        logits: From what it returned to (N, K) or (N, K, *places).
        embedding: The module whose output stands for an input of token ids, {name: module}.
        given: Further arguments of `xaicli.saliency`.
        jumps: Whether it jumps at a baseline of zero, so that no number of steps makes a path complete.
        next_token: Whether it answers at every token with the next one.
    """

    model: nn.Module
    inputs: Inputs
    logits: Callable[[Any], Tensor] = lambda result: result
    embedding: dict[str, nn.Module] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    jumps: bool = False
    next_token: bool = False


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.a, self.two, self.b = (
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.BatchNorm2d(8),
        )
        self.short, self.relu, self.head = nn.Conv2d(3, 8, 1, 2), nn.ReLU(inplace=True), nn.Linear(8, 4)
        for norm in (self.a, self.b):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.two(self.relu(self.a(self.one(x)))))
        h += self.short(x)
        return self.head(self.relu(h).mean((2, 3)))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.first, self.place = (
            nn.Conv2d(3, 16, 4, 4),
            nn.Parameter(torch.randn(1, 1, 16)),
            nn.Parameter(torch.randn(1, 17, 16)),
        )
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.body(torch.cat([self.first.expand(len(z), -1, -1), z], 1) + self.place)[:, 0])


class Swin(nn.Module):
    """Channels last from the patches on, windows rolled, no mixing but within windows of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm, self.qkv, self.out = (
            nn.Conv2d(3, 12, 2, 2),
            nn.LayerNorm(12),
            nn.Linear(12, 36),
            nn.Linear(12, 12),
        )
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def features(self, x: Tensor) -> Tensor:
        h = self.patch(x).permute(0, 2, 3, 1)
        z = torch.roll(self.norm(h), (-1, -1), (1, 2))
        n, height, width, c = z.shape
        windows = z.view(n, height // 2, 2, width // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(windows).chunk(3, -1)
        windows = self.out(functional.scaled_dot_product_attention(q, k, v))
        z = windows.view(n, height // 2, width // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, height, width, c)
        h = h + torch.roll(z, (1, 1), (1, 2))
        return self.last(h + self.mlp(h))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((1, 2)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.low, self.up, self.out = (
            nn.Conv2d(1, 6, 3, padding=1),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ConvTranspose2d(8, 6, 2, 2),
            nn.Conv2d(12, 3, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.down(x))
        low = torch.relu(self.low(functional.max_pool2d(h, 2)))
        return self.out(torch.cat([h, self.up(low)], 1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 12, 2, batch_first=True, bidirectional=True), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0].mean(1))


class Backbone(nn.Module):
    """A detector's: features of two sizes, and a class and a box at every place of both."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.classes, self.boxes = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = torch.relu(self.one(x))
        b = torch.relu(self.two(a))
        flat = [(self.classes(h).flatten(2), self.boxes(h).flatten(2)) for h in (a, b)]
        return {"boxes": torch.cat([f[1] for f in flat], 2), "scores": torch.cat([f[0] for f in flat], 2)}


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower, self.head = (
            nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU()),
            nn.Linear(12, 2),
        )

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.cat([self.tower(left).mean((2, 3)), self.tower(right).mean((2, 3))], 1))


class TwoTower(nn.Module):
    """A text and a row of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.text, self.table, self.head = (
            nn.Embedding(30, 6, padding_idx=0),
            nn.Linear(6, 8),
            nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
            nn.Linear(16, 3),
        )

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        keep = (ids != 0).float()[..., None]
        text = self.text((self.words(ids) * keep).sum(1) / keep.sum(1))
        return self.head(torch.cat([text, self.table(numbers)], 1))


def table() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 3))


def ragged(pad: int, vocabulary: int, lengths: tuple[int, ...] = (3, 6, 9, 12)) -> tuple[Tensor, Tensor]:
    """Ids of different lengths, and their mask."""
    ids = torch.full((len(lengths), max(lengths)), pad)
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.randint(5, vocabulary, (n,))
    return ids, (ids != pad).long()


def case(name: str) -> Case:
    """One of `NAMES`."""
    torch.manual_seed(3)
    found = _OF_OTHERS[name]() if name in _OF_OTHERS else _OWN[name]()
    found.model.eval()
    return found


def _detector() -> Case:
    return Case(
        Backbone(), torch.rand(3, 3, 16, 16), lambda r: r["scores"], given={"output": "scores", "task": "segmentation"}
    )


_OWN: dict[str, Callable[[], Case]] = {
    "residual block": lambda: Case(Block(), torch.rand(3, 3, 12, 12)),
    "vision transformer": lambda: Case(Vit(), torch.randn(3, 3, 16, 16)),
    "swin": lambda: Case(Swin(), torch.randn(3, 3, 16, 12)),
    "u-net": lambda: Case(UNet(), torch.rand(3, 1, 8, 8), given={"task": "segmentation"}),
    "lstm": lambda: Case(Recurrent(), torch.randn(3, 9, 5)),
    "detection backbone": _detector,
    "mlp on a table": lambda: Case(table(), torch.randn(4, 7)),
    "siamese": lambda: Case(Siamese(), {"left": torch.rand(3, 1, 9, 9), "right": torch.rand(3, 1, 9, 9)}),
    "multilabel": lambda: Case(table(), torch.randn(4, 7), given={"task": "multilabel"}),
    "regression": lambda: Case(
        nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 1)), torch.randn(4, 7), given={"task": "regression"}
    ),
    "a loss beside the logits": lambda: Case(Loss(), torch.randn(4, 7), lambda r: r[1]),
}


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = table()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.inner(x)
        return logits.logsumexp(1).mean(), logits


def _two_tower() -> Case:
    model = TwoTower()
    ids, _ = ragged(0, 30, (2, 5, 7))
    return Case(model, {"ids": ids, "numbers": torch.randn(3, 4)}, embedding={"ids": model.words})


_OWN["two towers"] = _two_tower
NAMES = tuple(_OWN)


def _bert(head: str) -> Case:
    import transformers as hf

    config = hf.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        initializer_range=0.5,
    )
    model = getattr(hf, head)(config)
    ids, mask = ragged(0, 60)
    # As a tokenizer gives them: in another order than forward has them.
    inputs = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": mask}
    return Case(model, inputs, _logits_of, {"input_ids": model.bert.embeddings.word_embeddings})


def _gpt2() -> Case:
    import transformers as hf

    config = hf.GPT2Config(
        vocab_size=60,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=40,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=2,
        initializer_range=0.5,
    )
    model = hf.GPT2ForSequenceClassification(config)
    ids, mask = ragged(0, 60)
    return Case(model, {"input_ids": ids, "attention_mask": mask}, _logits_of, {"input_ids": model.transformer.wte})


def _gpt2_of_texts() -> Case:
    import transformers as hf

    config = hf.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=40, initializer_range=0.5)
    model = hf.GPT2LMHeadModel(config)
    ids, mask = ragged(0, 60)
    return Case(
        model,
        {"input_ids": ids, "attention_mask": mask},
        _logits_of,
        {"input_ids": model.transformer.wte},
        next_token=True,
    )


class EncoderHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import transformers as hf

        config = hf.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        self.encoder, self.head = hf.T5EncoderModel(config), nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        keep = attention_mask[..., None].to(hidden.dtype)
        return self.head((hidden * keep).sum(1) / keep.sum(1)) * 10


def _t5() -> Case:
    model = EncoderHead()
    ids, mask = ragged(0, 60)
    words = model.encoder.encoder.embed_tokens
    # Its norms divide by the size of what they are given.
    return Case(model, {"input_ids": ids, "attention_mask": mask}, embedding={"input_ids": words}, jumps=True)


def _logits_of(result: Any) -> Tensor:
    logits: Tensor = result.logits
    return logits.movedim(-1, 1)


_OF_OTHERS: dict[str, Callable[[], Case]] = {
    "BERT": lambda: _bert("BertForSequenceClassification"),
    "BERT for tokens": lambda: _bert("BertForTokenClassification"),
    "GPT-2": _gpt2,
    "GPT-2 of texts": _gpt2_of_texts,
    "T5 encoder": _t5,
}
OF_OTHERS = tuple(_OF_OTHERS)
