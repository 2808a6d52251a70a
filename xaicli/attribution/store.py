"""Finished explanations on disk, one atomic file each: what an interrupted call, or another rank, need not do again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xaicli import __version__
from xaicli.attribution.explanation import Explanation, Floats, Saliency, Trust
from xaicli.files import write_whole

_SEPARATOR = "\x1f"

ByMap = Mapping[tuple[str, str], Floats]
"""{(method, input): (explanation, ...)}."""


@dataclass(frozen=True)
class Finished:
    """The explanations of one sample, and their arrays, which they do not hold yet.

    Attributes:
        explanations: One a target.
        maps, attributions: (explanation, ...) by method and input.
    """

    explanations: tuple[Explanation, ...]
    maps: ByMap = field(default_factory=dict)
    attributions: ByMap = field(default_factory=dict)


def key_of(*parts: Any) -> str:
    """A name for what an explanation depends on: values that print alike, and arrays by their bytes."""
    digest = hashlib.sha256(__version__.encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


class Store:
    """The finished explanations in one folder; without a folder, or where it cannot be written, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, key: str) -> Finished | None:
        """What was finished under a key; None for nothing, or for a file that is not whole."""
        if self.folder is None:
            return None
        try:
            # Opened here: numpy leaves a file open that turns out to be no whole archive.
            with (self.folder / f"{key}.npz").open("rb") as file, np.load(file, allow_pickle=False) as held:
                facts = json.loads(str(held["facts"]))
                arrays: dict[str, dict[tuple[str, str], Any]] = {"map": {}, "attribution": {}}
                for name in held.files:
                    part, _, rest = name.partition(_SEPARATOR)
                    if part in arrays:
                        method, _, of = rest.partition(_SEPARATOR)
                        arrays[part][method, of] = held[name]
            return Finished(tuple(_explanation(fact) for fact in facts), arrays["map"], arrays["attribution"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def write(self, key: str, finished: Finished) -> None:
        """Keep the explanations of one sample, completely or not at all."""
        if self.folder is None:
            return
        arrays: dict[str, Any] = {"facts": json.dumps([_facts(e) for e in finished.explanations])}
        for part, found in (("map", finished.maps), ("attribution", finished.attributions)):
            for (method, name), values in found.items():
                arrays[_SEPARATOR.join((part, method, name))] = values
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_npz(self.folder / f"{key}.npz", arrays)
        except OSError:
            self.folder = None  # Keeping is a convenience: the answer is still in memory.

    @contextlib.contextmanager
    def alive(self, call: str, rank: int, seconds: float) -> Iterator[None]:
        """Give a sign of life every few seconds, for the rank that waits for this one's samples.

        Args:
            call: What all ranks work on.
            rank: This one; rank 0 is waited for by nobody.
            seconds: How often.
        """
        if self.folder is None or rank == 0:
            yield
            return
        path, done = self._sign(self.folder, call, rank), threading.Event()

        def beat() -> None:
            while True:
                with contextlib.suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                if done.wait(seconds):
                    return

        thread = threading.Thread(target=beat, name="xai-alive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with contextlib.suppress(OSError):
                path.unlink()

    def sign_of_life(self, call: str, rank: int) -> int | None:
        """When a rank last gave one, by its own clock; None for never, or when it is done."""
        if self.folder is None:
            return None
        try:
            return self._sign(self.folder, call, rank).stat().st_mtime_ns
        except OSError:
            return None

    @staticmethod
    def _sign(folder: Path, call: str, rank: int) -> Path:
        return folder / f"{call}.rank-{rank}"


def _facts(explanation: Explanation) -> dict[str, Any]:
    facts = {
        name: getattr(explanation, name)
        for name in Explanation.__dataclass_fields__
        if name not in ("inputs", "maps", "trust")
    }
    facts["trust"] = {method: {**asdict(t), "quality": dict(t.quality)} for method, t in explanation.trust.items()}
    return facts


def _explanation(facts: dict[str, Any]) -> Explanation:
    """One of those that were kept; a TypeError where it was kept without a fact that is of every one."""
    trust = {method: Trust(**values) for method, values in facts.pop("trust").items()}
    top = tuple((str(name), float(p)) for name, p in facts.pop("top"))
    return Explanation(**facts, top=top, inputs=(), maps=(), trust=trust)


def maps_archive(saliency: Saliency) -> dict[str, Any]:
    """The arrays of `maps.npz`, a row an explanation.

    `<method>` (row, H, W), `attribution/<method>` (row, ...), `sample_id`, `target`; of inputs kept in a run `mode`
    and `ds_id`; with several inputs `<method>/<input>` and `attribution/<method>/<input>`; with several checkpoints
    `checkpoint`, with several outputs `output`. Of texts `words` (row, longest), the text of each token, "" behind a
    shorter one and where padding stands; with several texts a sample `words/<input>`.
    """
    rows = saliency.explanations
    arrays: dict[str, Any] = {
        "sample_id": np.array([e.sample_id for e in rows]),
        "target": np.array([e.target for e in rows], dtype=np.int64),
    }
    if any(e.mode is not None for e in rows):
        arrays |= {"mode": np.array([e.mode or "" for e in rows]), "ds_id": np.array([e.ds_id or "" for e in rows])}
    if len(saliency.checkpoints) > 1:
        arrays["checkpoint"] = np.array([saliency.checkpoints[e.checkpoint].name for e in rows])
    if len({e.output for e in rows}) > 1:
        arrays["output"] = np.array([e.output for e in rows])
    for method, by_input in saliency.maps.items():
        for name, values in by_input.items():
            said = f"{method}/{name}" if len(by_input) > 1 else method
            arrays[said] = values
            arrays[f"attribution/{said}"] = saliency.attributions[method][name]
    texts = [{view.name: view.words for view in e.inputs if view.tokens} for e in rows]
    named = list(dict.fromkeys(name for of_row in texts for name in of_row))
    for name in named:
        longest = max(len(of_row.get(name, ())) for of_row in texts)
        padded = [[*of_row.get(name, ())] + [""] * (longest - len(of_row.get(name, ()))) for of_row in texts]
        arrays[f"words/{name}" if len(named) > 1 else "words"] = np.array(padded, dtype=np.str_)
    return arrays


def write_npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write an .npz under a temporary name, then rename; the same arrays give the same bytes."""
    return write_whole(path, npz_bytes(arrays))


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
