"""A small run made by the real recorder, with everything a report shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import xaicli

CLASSES = 4
SAMPLES = 60
EPOCHS = 6
MISLABELLED = (7, 21, 42)
"""The samples whose label is wrong, in the recorded run."""

HOSTILE = (
    "</script><img src=x onerror=window.hit=1>",
    "\"'><svg onload=window.hit=1>",
    "\x1b[31mred\x1b[0m \u202egnp.exe [bold]x[/bold]",
    "=HYPERLINK(1)" + "y" * 10_000,
)
"""Label names that want to be more than text."""


def record(
    run_dir: Path,
    *,
    label_names: tuple[str, ...] = ("cat", "dog", "cow", "owl"),
    samples: int = SAMPLES,
    epochs: int = EPOCHS,
    classes: int = CLASSES,
    images: bool = True,
    nan: bool = False,
) -> Path:
    """Record a model that learns all samples but the mislabelled ones; seeded.

    Args:
        run_dir: Where to.
        label_names: What the labels are called.
        samples, epochs, classes: How many.
        images: Whether to keep thumbnails.
        nan: Every loss is NaN.
    """
    draw = np.random.default_rng(0)
    ids = np.arange(samples)
    true = ids % classes
    label = true.copy()
    wrong = np.array([i for i in MISLABELLED if i < samples], dtype=int)
    label[wrong] = (label[wrong] + 1) % classes
    config = {"lr": 0.1, "notes": "some labels are wrong on purpose"}
    with xaicli.Run(run_dir, config=config, label_names=list(label_names), keep_probs=True) as run:
        if images:
            run.log_images(ids, draw.integers(0, 255, (samples, 8, 8, 3), dtype=np.uint8))
        for epoch in run.epochs(epochs):
            logits = draw.normal(size=(samples, classes))
            logits[ids, true] += 1.2 * epoch
            loss = np.full(samples, np.nan) if nan else None
            given = {"loss": loss} if loss is not None else {}
            run.log_samples(
                sample_id=ids, label=label, logits=logits, mode="eval", epoch=epoch, step=10 * epoch, **given
            )
            run.log({"epoch": epoch, "lr": 0.1 / epoch})
    return run_dir
