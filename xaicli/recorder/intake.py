"""The way of a batch from the caller into the stream: at once from the host, after its copy from a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.heads.head import Task
from xaicli.recorder import columns, lifetime
from xaicli.recorder.batch import Batches
from xaicli.recorder.stream import SampleStream
from xaicli.recorder.transfer import Transfers, derive_on_device, is_remote
from xaicli.wal.frames import Place

Given = dict[str, Any]
"""The columns as the caller gave them, `logits`, `probs` and metrics among them; absent ones are left out."""


class Intake:
    """Keeps batches in the order they were given, whatever device they are on."""

    def __init__(
        self,
        batches: Batches,
        samples: SampleStream,
        refuse: Callable[[Exception, int], None],
        lose: Callable[[int, str], None],
        transfers: Transfers | None = None,
    ) -> None:
        """
        Args:
            batches: Checks and completes them.
            samples: Keeps them.
            refuse: Told of a batch that turns out bad after its copy.
            lose: Told of rows whose device failed.
            transfers: Brings them to the host.
        """
        self._batches = batches
        self._samples = samples
        self._refuse = refuse
        self._lose = lose
        self._transfers = transfers or Transfers()

    def add(
        self,
        place: Place,
        step: int,
        sample_id: Any,
        label: Any,
        prediction: Any,
        logits: Any,
        probs: Any,
        metrics: Mapping[str, Any],
        keep: bool,
        tokens: bool = False,
    ) -> None:
        """Keep a batch.

        Raises:
            ValueError: It cannot be stored; the column is named.
        """
        with self._samples.lock:
            if self._transfers.pending:
                self._transfers.drain()
            if self._transfers.pending:
                batch = None
            else:
                batch = self._batches.make(sample_id, label, prediction, logits, probs, metrics, keep, tokens)
            if batch is None:
                named = zip(_NAMED, (sample_id, label, prediction, logits, probs), strict=True)
                given = {**dict(named), **metrics}
                self._fetch(
                    place, step, {name: value for name, value in given.items() if value is not None}, keep, tokens
                )
            elif batch[1]:
                self._samples.append(place, step, *batch)
        if lifetime.is_pending():
            lifetime.finish_pending()

    def drain(self, seconds: float | None = None) -> None:
        """Wait for every batch on its way; for at most so long, after which those left are dropped and counted."""
        if self._transfers.pending:
            with self._samples.lock:
                if seconds is None:
                    self._transfers.drain(wait=True)
                else:
                    self._transfers.drain_within(seconds)

    def _fetch(self, place: Place, step: int, given: Given, keep: bool, tokens: bool) -> None:
        """Start the copy of what is on a device; hold copies of the rest, which the caller may change."""
        rows = _length(given[words.SAMPLE_ID])
        for name in [name for name, value in given.items() if _length(value) != rows]:
            reason = f"{name} has {_length(given.pop(name))} values for {rows} sample ids"
            self._batches.refuse(name, reason, rows)
        if not keep and self._batches.task in (None, Task.CLASSIFICATION, Task.BINARY):
            given = _derived(given, self._batches.ignored)
        remote = {name: value for name, value in given.items() if is_remote(value)}
        host = {name: _own_copy(value) for name, value in given.items() if name not in remote}

        def arrive(arrays: dict[str, NDArray[Any]]) -> None:
            try:
                found = host | arrays
                ids, label, prediction, logits, probs = (found.pop(name, None) for name in _NAMED)
                batch = self._batches.make(ids, label, prediction, logits, probs, found, keep, tokens)
                if batch is not None and batch[1]:
                    self._samples.append(place, step, *batch)
            except Exception as error:  # it is the batch's fault, not that of the call that finds the copy arrived
                self._refuse(error, rows)

        def fail(error: Exception) -> None:
            self._lose(rows, f"a batch did not come from its device: {error}")

        if remote:
            self._transfers.fetch(remote, arrive, fail)
        else:
            self._transfers.follow(arrive)


_NAMED = (words.SAMPLE_ID, words.LABEL, words.PREDICTION, "logits", "probs")


def _derived(given: Given, ignored: int | None) -> Given:
    """What was given, with what follows from scores on a device in their place."""
    name = "logits" if "logits" in given else "probs"
    scores: Any = given.get(name)
    if not is_remote(scores) or scores.ndim != 2 or scores.shape[1] < 2:
        return given  # what there is to say about it is said on the host
    import torch

    label = given.get(words.LABEL)
    if label is not None and not isinstance(label, torch.Tensor):
        try:
            whole = columns.labels(label, words.LABEL)
        except ValueError:
            return given  # told of where the batch is checked
        if isinstance(whole, list):
            return given  # names are looked up on the host
        label = torch.from_numpy(whole)
    if label is not None and (label.numel() != len(scores) or label.is_floating_point()):
        return given
    found = derive_on_device(
        scores,
        None if label is None else label.reshape(-1),
        are_logits=name == "logits",
        with_loss=words.LOSS not in given,
        ignored=ignored,
    )
    return found | {key: value for key, value in given.items() if key not in ("logits", "probs")}


def _length(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    return 1 if isinstance(value, str) or not hasattr(value, "__len__") else len(value)


def _own_copy(value: Any) -> Any:
    if columns.is_tensor(value):
        value = columns.tensor_to_array(value)
    return np.array(value) if isinstance(value, np.ndarray) else list(value) if isinstance(value, list) else value
