"""Finished explanations on disk, one atomic file each: what an interrupted call, or another rank, need not do again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xaicli import __version__
from xaicli.attribution.explanation import Explanation, Saliency, SaliencyMap, Trust
from xaicli.files import write_whole

_SEPARATOR = "\x1f"
_SIZES = "chunks.json"


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

    def read(self, key: str) -> tuple[Explanation, ...] | None:
        """What was finished under a key; None for nothing, or for a file that is not whole."""
        if self.folder is None:
            return None
        try:
            with np.load(self.folder / f"{key}.npz", allow_pickle=False) as held:
                facts = json.loads(str(held["facts"]))
                return tuple(_explanation(number, fact, held) for number, fact in enumerate(facts))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def write(self, key: str, explanations: Sequence[Explanation]) -> None:
        """Keep the explanations of one sample, completely or not at all."""
        if self.folder is None:
            return
        arrays: dict[str, Any] = {"facts": json.dumps([_facts(e) for e in explanations])}
        for number, explanation in enumerate(explanations):
            for m in explanation.maps:
                for part, values in (("map", m.values), ("attribution", m.attribution)):
                    arrays[_SEPARATOR.join((str(number), part, m.method, m.input))] = values
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_npz(self.folder / f"{key}.npz", arrays)
        except OSError:
            self.folder = None  # Keeping is a convenience: the answer is still in memory.

    def read_sizes(self) -> dict[str, int]:
        """The chunk sizes an earlier call found; empty when there are none."""
        try:
            found = json.loads((self.folder / _SIZES).read_text()) if self.folder else {}
            return {key: rows for key, rows in found.items() if isinstance(rows, int)}
        except (OSError, ValueError, AttributeError):
            return {}

    def write_sizes(self, sizes: Mapping[str, int]) -> None:
        """Keep chunk sizes for the next call."""
        if self.folder is not None and self.folder.is_dir():
            with contextlib.suppress(OSError):
                write_whole(self.folder / _SIZES, json.dumps(dict(sizes)).encode())


def _facts(explanation: Explanation) -> dict[str, Any]:
    facts = {
        name: getattr(explanation, name)
        for name in Explanation.__dataclass_fields__
        if name not in ("inputs", "maps", "trust")
    }
    facts["trust"] = {method: {**asdict(t), "quality": dict(t.quality)} for method, t in explanation.trust.items()}
    facts["maps"] = [(m.method, m.input, m.flat) for m in explanation.maps]
    return facts


def _explanation(number: int, facts: dict[str, Any], held: Mapping[str, Any]) -> Explanation:
    def array(part: str, method: str, name: str) -> Any:
        return held[_SEPARATOR.join((str(number), part, method, name))]

    maps = tuple(
        SaliencyMap(method, name, array("map", method, name), array("attribution", method, name), bool(flat))
        for method, name, flat in facts.pop("maps")
    )
    trust = {method: Trust(**values) for method, values in facts.pop("trust").items()}
    top = tuple((str(name), float(p)) for name, p in facts.pop("top"))
    return Explanation(**facts, top=top, inputs=(), maps=maps, trust=trust)


def maps_archive(saliency: Saliency) -> dict[str, Any]:
    """The arrays of `maps.npz`, a row an explanation.

    `<method>` (row, H, W), `attribution/<method>` (row, ...), `sample_id`, `target`; with several inputs
    `<method>/<input>` and `attribution/<method>/<input>`; with several checkpoints
    `checkpoint`, with several outputs `output`.
    """
    rows = saliency.explanations
    arrays: dict[str, Any] = {
        "sample_id": np.array([e.sample_id for e in rows]),
        "target": np.array([e.target for e in rows], dtype=np.int64),
    }
    if len(saliency.checkpoints) > 1:
        arrays["checkpoint"] = np.array([saliency.checkpoints[e.checkpoint].name for e in rows])
    if len({e.output for e in rows}) > 1:
        arrays["output"] = np.array([e.output for e in rows])
    if not rows:
        return arrays
    several = len({m.input for m in rows[0].maps}) > 1
    for first in rows[0].maps:
        name = f"{first.method}/{first.input}" if several else first.method
        found = [e.map_of(first.method, first.input) for e in rows]
        whole = [m for m in found if m is not None]
        arrays[name] = np.stack([m.values for m in whole])
        arrays[f"attribution/{name}"] = np.stack([m.attribution for m in whole])
    return arrays


def write_npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write an .npz under a temporary name, then rename; the same arrays give the same bytes."""
    return write_whole(path, npz_bytes(arrays))


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
