"""Small trainings beyond one label a sample, on data made from the digits or shipped with Python: `xai demo --task`.

Each plants mistakes on purpose, says so in its notes and keeps them as a fact, so that what the pages find can be held
against them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaicli.demo import LABEL_NAMES, load_digits, one_thread
from xaicli.errors import UsageError
from xaicli.recorder.run import Run

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

TASKS = ("regression", "multilabel", "sequence", "boxes")
_BATCH = 64
_EVAL_EVERY = 5
_TURNED = 45.0
"""Degrees by which digits are turned at most."""
_OLD, _MIXED = 0.25, 56
"""How many of them an old camera sees, and how many of its 64 pixels it mixes up."""
_WORDS = 16
_VOCABULARY = 300
_SENTENCES = 700
_OTHER = "<other>"
_SHEET, _DIGIT, _CELL = 32, 8, 4
"""Pixels: of a sheet, of a digit on it, of a cell that tells of one."""


@dataclass(frozen=True)
class _Data:
    """Samples with labels and facts; `mistake` says which labels are wrong on purpose."""

    inputs: NDArray[Any]
    label: NDArray[Any]
    facts: Mapping[str, list[Any]]
    mistake: NDArray[np.bool_]
    images: NDArray[np.uint8] | None
    notes: str


def record_task(
    task: str,
    run_dir: str | Path,
    *,
    epochs: int = 12,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] | None = None,
) -> int:
    """Train a small net and record every sample of every pass, with facts.

    Args:
        task: One of `TASKS`.
        run_dir: The run directory to write.
        epochs: How many passes over the training samples.
        seed: For the mistakes, the weights and the order of the samples.
        on_epoch: Called with (epochs done, epochs) after each epoch.

    Returns:
        How many labels of the samples in the run are wrong on purpose.

    Raises:
        UsageError: There is no such task.
        XaiError: torch is not installed.
    """
    if task not in TASKS:
        raise UsageError(f"--task {task!r} has no demo", hint="choose from: " + ", ".join(TASKS))
    with one_thread():
        if task == "boxes":
            return _record_boxes(run_dir, epochs=epochs, seed=seed, on_epoch=on_epoch)
        return _record_samples(task, run_dir, epochs=epochs, seed=seed, on_epoch=on_epoch)


def _record_samples(
    task: str, run_dir: str | Path, *, epochs: int, seed: int, on_epoch: Callable[[int, int], None] | None
) -> int:
    import torch

    torch.manual_seed(seed)
    data = {"regression": _turned, "multilabel": _pairs, "sequence": _sentences}[task](seed)
    ids = np.arange(len(data.label))
    held_out = ids % _EVAL_EVERY == 0
    model, loss_of = _model(task, data)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    config = {"notes": data.notes, "task": task, "epochs": epochs, "seed": seed, "batch_size": _BATCH}
    names = LABEL_NAMES if task == "multilabel" else None
    with Run(
        run_dir, config=config, total_epochs=epochs, task=task, label_names=names, resume="never", keep_probs=False
    ) as run:
        facts: dict[str, Any] = {"mistake": np.where(data.mistake, "planted", "none").tolist(), **data.facts}
        run.log_facts(ids, **facts)
        if data.images is not None:
            run.log_images(ids, data.images)
        for epoch in run.epochs(epochs):
            model.train()
            for batch in run.steps(_batches(ids[~held_out], seed + epoch), mode="train"):
                x, y = torch.from_numpy(data.inputs[batch]), torch.from_numpy(data.label[batch])
                output = model(x)
                loss = loss_of(output, y)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                run.log_samples(sample_id=batch, label=y, logits=output.detach(), **_how(task))
            run.log({"epoch": epoch, "train_loss": loss.detach()})
            model.eval()
            with torch.no_grad():
                for batch in run.steps(_batches(ids[held_out]), mode="eval"):
                    output = model(torch.from_numpy(data.inputs[batch]))
                    y = torch.from_numpy(data.label[batch])
                    run.log_samples(sample_id=batch, label=y, logits=output, **_how(task))
            if on_epoch:
                on_epoch(epoch, epochs)
    return int(data.mistake.sum())


def _how(task: str) -> dict[str, Any]:
    return {"keep_tokens": True} if task == "sequence" else {}


def _batches(ids: NDArray[np.int64], seed: int | None = None, size: int = _BATCH) -> Iterator[NDArray[np.int64]]:
    order = ids if seed is None else np.random.default_rng(seed).permutation(ids)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _model(task: str, data: _Data) -> tuple[torch.nn.Module, Callable[[Any, Any], torch.Tensor]]:
    from torch import nn
    from torch.nn import functional

    if task == "sequence":
        return _reader(int(data.inputs.max()) + 1), lambda z, y: functional.cross_entropy(z.transpose(1, 2), y)
    width = data.inputs.shape[-1]
    outputs = 1 if task == "regression" else len(LABEL_NAMES)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 4 * (width // 2), 64),
        nn.ReLU(),
        nn.Linear(64, outputs),
    )
    if task == "multilabel":
        return model, lambda z, y: functional.binary_cross_entropy_with_logits(z, y.float())
    scaled = nn.Sequential(model, _times(_TURNED))
    return scaled, lambda z, y: functional.mse_loss(z[:, 0] / _TURNED, y.float() / _TURNED)


def _times(factor: float) -> torch.nn.Module:
    """A layer that multiplies: degrees out of a net that answers about 1."""
    from torch import nn

    class Times(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * factor

    return Times()


def _reader(words: int) -> torch.nn.Module:
    """A net that names the next word at every place of a text."""
    from torch import nn

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(words, 32)
            self.memory = nn.GRU(32, 64, batch_first=True)
            self.answer = nn.Linear(64, words)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            known, _ = self.memory(self.words(x))
            found: torch.Tensor = self.answer(known)
            return found

    return Reader()


def _turned(seed: int) -> _Data:
    """Digits turned by an angle, which is to be told; some are seen badly, of some the angle is noted wrongly."""
    import torch
    from torch.nn import functional

    digits = load_digits(flip=0.0)
    draw = np.random.default_rng(seed)
    n = len(digits.label)
    angle = draw.uniform(-_TURNED, _TURNED, n)
    turn = torch.from_numpy(np.radians(angle).astype(np.float32))
    zero = torch.zeros(n)
    rows = torch.stack([turn.cos(), turn.sin(), zero, -turn.sin(), turn.cos(), zero], dim=1).reshape(n, 2, 3)
    grid = functional.affine_grid(rows, [n, 1, 8, 8], align_corners=False)
    images = functional.grid_sample(torch.from_numpy(digits.images), grid, align_corners=False).numpy()
    mistake = np.zeros(n, bool)
    mistake[draw.choice(n, round(0.03 * n), replace=False)] = True
    noted = np.where(mistake, angle + draw.choice([-1.0, 1.0], n) * draw.uniform(50, 80, n), angle)
    is_old = draw.uniform(size=n) < _OLD
    pixels = images.reshape(n, -1)
    for i in np.flatnonzero(is_old):
        moved = draw.choice(pixels.shape[1], _MIXED, replace=False)
        pixels[i, moved] = pixels[i, draw.permutation(moved)]
    return _Data(
        inputs=images,
        label=noted.round(2),
        facts={
            "digit": [LABEL_NAMES[i] for i in digits.true_label],
            "camera": np.where(is_old, "old", "new").tolist(),
            "ink": images.mean(axis=(1, 2, 3)).round(3).tolist(),
        },
        mistake=mistake,
        images=_pictures(images),
        notes=f"digits turned by up to {_TURNED:.0f} degrees, which is to be told; {is_old.sum()} of {n:,} are "
        f"seen by an old camera, which mixes up pixels; {mistake.sum()} angles are noted 50 to 80 degrees off on "
        f"purpose (seed {seed})",
    )


def _pairs(seed: int) -> _Data:
    """Two or three digits side by side, whose set is to be told; of some sets one digit is left out or put in."""
    digits = load_digits(flip=0.0)
    draw = np.random.default_rng(seed)
    n = 1800
    chosen = draw.integers(0, len(digits.label), (n, 3))
    empty = draw.uniform(size=n) < 0.4
    tiles = digits.images[chosen, 0]
    tiles[empty, 2] = 0
    images = np.concatenate([tiles[:, i] for i in range(3)], axis=2)[:, None]
    label = np.zeros((n, len(LABEL_NAMES)), np.int64)
    for place in range(3):
        there = ~empty if place == 2 else np.ones(n, bool)
        label[np.flatnonzero(there), digits.true_label[chosen[there, place]]] = 1
    true = label.copy()
    mistake = np.zeros(n, bool)
    mistake[draw.choice(n, round(0.04 * n), replace=False)] = True
    for i in np.flatnonzero(mistake):
        label[i, draw.integers(len(LABEL_NAMES))] ^= 1
    truth = [" ".join(LABEL_NAMES[c] for c in np.flatnonzero(row)) for row in true]
    return _Data(
        inputs=images.astype(np.float32),
        label=label,
        facts={"digits": np.where(empty, "two", "three").tolist(), "truth": truth},
        mistake=mistake,
        images=_pictures(images),
        notes=f"two or three digits side by side, which are to be named; in {mistake.sum()} of {n:,} sets one digit is "
        f"left out or put in on purpose (seed {seed})",
    )


def _sentences(seed: int) -> _Data:
    """Sentences of Python's own manual, whose next word is to be told; the words of some are shuffled."""
    from pydoc_data.topics import topics

    draw = np.random.default_rng(seed)
    texts: list[tuple[str, list[str]]] = []
    for source, text in sorted(topics.items()):
        plain = re.sub(r"[`*_|~^=\-]{2,}|\s+", " ", text)
        for sentence in re.split(r"(?<=[.:!?]) ", plain):
            words = re.findall(r"[A-Za-z']+|[0-9]+|[^\sA-Za-z0-9]", sentence.lower())
            if 8 <= len(words) <= 4 * _WORDS:
                texts.append((source, words[: _WORDS + 1]))
    picked = [texts[i] for i in np.sort(draw.choice(len(texts), min(_SENTENCES, len(texts)), replace=False))]
    counts: dict[str, int] = {}
    for _, words in picked:
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:_VOCABULARY]
    place = {word: number for number, word in enumerate([_OTHER, *frequent])}
    n = len(picked)
    mistake = np.zeros(n, bool)
    mistake[draw.choice(n, round(0.04 * n), replace=False)] = True
    inputs = np.zeros((n, _WORDS), np.int64)
    label = np.full((n, _WORDS), -100, np.int64)
    told = []
    for i, (_, words) in enumerate(picked):
        if mistake[i]:
            words = list(draw.permutation(words))
        codes = [place.get(word, 0) for word in words]
        inputs[i, : len(codes) - 1], label[i, : len(codes) - 1] = codes[:-1], codes[1:]
        told.append(" ".join(word if word in place else _OTHER for word in words[1:]))
    return _Data(
        inputs=inputs,
        label=label,
        facts={"source": [source for source, _ in picked], "tokens": told},
        mistake=mistake,
        images=None,
        notes=f"{n:,} sentences of Python's manual, whose next word is to be told; the words of {mistake.sum()} are "
        f"shuffled on purpose (seed {seed})",
    )


def _record_boxes(run_dir: str | Path, *, epochs: int, seed: int, on_epoch: Callable[[int, int], None] | None) -> int:
    """Digits on a sheet, to be found; every epoch's boxes are collected. Some labels are left out, some made up."""
    import torch
    from torch import nn
    from torch.nn import functional

    from xaicli.collectors.boxes import BoundingBoxMetricsCollector
    from xaicli.collectors.collect import collect_metrics
    from xaicli.tables.table import Table

    sheets, truth, mistake = _sheets(seed)
    n = len(sheets)
    held_out = np.arange(n) % _EVAL_EVERY == 0
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 3 + len(LABEL_NAMES), 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    planted, told = int((mistake != "none").sum()), int((mistake[held_out] != "none").sum())
    notes = (
        f"one to three digits on {n:,} sheets, to be found; on {planted} sheets one label is left out or made up on "
        f"purpose, {told} of them among the {int(held_out.sum())} of which boxes are recorded (seed {seed})"
    )
    config = {"notes": notes, "task": "boxes", "epochs": epochs, "seed": seed, "batch_size": _BATCH}
    targets = [_cells(boxes, labels) for boxes, labels in truth]
    shown = np.flatnonzero(held_out)
    ids = np.arange(len(shown))
    table = Table([(sheets[i], {"boxes": truth[i][0], "labels": truth[i][1]}) for i in shown], ids=ids.tolist())
    args = {"batch_size": _BATCH, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}

    def found(batch: Any) -> list[dict[str, Any]]:
        with torch.no_grad():
            return [_found(one) for one in model(torch.from_numpy(np.stack(batch))).numpy()]

    with Run(run_dir, config=config, total_epochs=epochs, label_names=LABEL_NAMES, resume="never") as run:
        run.log_facts(ids, mistake=mistake[shown].tolist(), digits=[len(truth[i][1]) for i in shown])
        run.log_images(ids, _pictures(sheets[shown]))
        for epoch in run.epochs(epochs):
            model.train()
            for batch in _batches(np.flatnonzero(~held_out), seed + epoch, size=16):
                wanted = torch.from_numpy(np.stack([targets[i] for i in batch]))
                said = model(torch.from_numpy(sheets[batch]))
                there = wanted[:, 0] > 0
                loss = functional.binary_cross_entropy_with_logits(
                    said[:, 0], wanted[:, 0], pos_weight=torch.tensor(4.0)
                )
                loss = loss + (said[:, 1:3] - wanted[:, 1:3]).abs().sum(1)[there].mean()
                classes = said[:, 3:].movedim(1, 3)[there]
                loss = loss + functional.cross_entropy(classes, wanted[:, 3].long()[there])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            run.log({"epoch": epoch, "train_loss": loss.detach()})
            model.eval()
            collector = BoundingBoxMetricsCollector(list(LABEL_NAMES))
            collect_metrics(table, collector, found, run=run, split="val", dataloader_args=args)
            if on_epoch:
                on_epoch(epoch, epochs)
    return told


Objects = tuple["NDArray[np.float32]", "NDArray[np.int64]"]
"""Boxes (objects, 4) as x0, y0, x1, y1, and their classes."""


def _sheets(seed: int) -> tuple[NDArray[np.float32], list[Objects], NDArray[np.str_]]:
    """Sheets (N, 1, 32, 32) of digits, their noted objects, and what is wrong with these on purpose."""
    digits = load_digits(flip=0.0)
    draw = np.random.default_rng(seed)
    n = 1200
    sheets = np.zeros((n, 1, _SHEET, _SHEET), np.float32)
    truth: list[Objects] = []
    mistake = np.full(n, "none", dtype="<U16")
    for i in range(n):
        corners: list[tuple[int, int]] = []
        labels: list[int] = []
        for _ in range(int(draw.integers(1, 4))):
            x, y = (int(v) for v in draw.integers(0, _SHEET - _DIGIT + 1, 2))
            if all(max(abs(x - a), abs(y - b)) >= _DIGIT for a, b in corners):
                chosen = int(draw.integers(len(digits.label)))
                sheets[i, 0, y : y + _DIGIT, x : x + _DIGIT] = digits.images[chosen, 0]
                corners.append((x, y))
                labels.append(int(digits.true_label[chosen]))
        wrong = draw.uniform()
        if wrong < 0.05 and len(corners) > 1:
            mistake[i] = "label left out"
            corners.pop()
            labels.pop()
        elif wrong < 0.1:
            free = [(x, y) for x in range(0, 25, 4) for y in range(0, 25, 4)]
            free = [(x, y) for x, y in free if all(max(abs(x - a), abs(y - b)) >= _DIGIT for a, b in corners)]
            if free:
                mistake[i] = "label made up"
                corners.append(free[int(draw.integers(len(free)))])
                labels.append(int(draw.integers(len(LABEL_NAMES))))
        starts = np.array(corners, np.float32)
        truth.append((np.concatenate([starts, starts + _DIGIT], axis=1), np.array(labels, np.int64)))
    return sheets, truth, mistake


def _cells(boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """What each cell of the sheet is to say: (object, its centre within the cell, its class)."""
    cells = np.zeros((4, _SHEET // _CELL, _SHEET // _CELL), np.float32)
    for box, label in zip(boxes, labels, strict=True):
        centre = (box[:2] + box[2:]) / 2 / _CELL
        column, row = (int(v) for v in np.minimum(centre, _SHEET // _CELL - 1))
        cells[:, row, column] = 1, *(centre - (column, row)), label
    return cells


def _found(said: NDArray[np.float32]) -> dict[str, Any]:
    """The boxes that the cells of one sheet tell of, those that overlap a surer one left out."""
    sure = 1 / (1 + np.exp(-said[0]))
    boxes: list[list[float]] = []
    labels: list[int] = []
    scores: list[float] = []
    for place in np.argsort(-sure, axis=None, kind="stable"):
        row, column = np.unravel_index(place, sure.shape)
        if sure[row, column] < 0.3:
            break
        x, y = (float(v) for v in (said[1:3, row, column] + (column, row)) * _CELL)
        if all(max(abs(x - (b[0] + b[2]) / 2), abs(y - (b[1] + b[3]) / 2)) >= _DIGIT / 2 for b in boxes):
            half = _DIGIT / 2
            boxes.append([max(x - half, 0), max(y - half, 0), min(x + half, _SHEET), min(y + half, _SHEET)])
            labels.append(int(said[3:, row, column].argmax()))
            scores.append(float(sure[row, column]))
    return {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": labels, "scores": scores}


def _pictures(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 1, H, W) in [0, 1] as dark ink on white paper."""
    return ((1 - images.clip(0, 1)) * 255).astype(np.uint8)
