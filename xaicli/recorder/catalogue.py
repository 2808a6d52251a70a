"""The run's one schema: which columns its samples have, shared by all ranks and attempts through `xai.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xaicli import vocabulary as words
from xaicli.layout import ColumnFacts, Manifest, RunLayout
from xaicli.parquet import write_bytes
from xaicli.recorder.start import locked
from xaicli.wal import manifest_columns

_KINDS = {"int64": "whole numbers", "int32": "whole numbers", "string": "texts"}


class Catalogue:
    """The columns known so far; a new one is added to `xai.json` before its first row is stored."""

    def __init__(self, layout: RunLayout, manifest: Manifest) -> None:
        self._layout = layout
        self._adopt(manifest)

    def _adopt(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.facts: tuple[ColumnFacts, ...] = manifest.columns
        self._dtypes = {column.name: column.dtype for column in manifest.columns}

    def learn(self, dtypes: Mapping[str, str]) -> None:
        """Add the columns of a batch.

        Args:
            dtypes: {name: Arrow type}.

        Raises:
            ValueError: A column is of another kind than the run's.
            OSError: `xai.json` cannot be written.
        """
        self._check(dtypes)
        if dtypes.keys() <= self._dtypes.keys():
            return
        with locked(self._layout):
            self._adopt(self._layout.read_manifest())
            self._check(dtypes)
            merged = self._dtypes | {name: dtype for name, dtype in dtypes.items() if name not in self._dtypes}
            if {words.LABEL, words.PREDICTION} <= merged.keys():
                merged[words.CORRECT] = "bool"
            columns = manifest_columns(merged)
            manifest = replace(self.manifest, columns=columns, id_type=merged.get(words.SAMPLE_ID))
            write_bytes(manifest.to_json().encode(), self._layout.manifest)
            self._adopt(manifest)

    def _check(self, dtypes: Mapping[str, str]) -> None:
        for name, dtype in dtypes.items():
            known = self._dtypes.get(name, dtype)
            if known != dtype and name in (words.SAMPLE_ID, words.LABEL, words.PREDICTION):
                raise ValueError(f"{name} must be {_KINDS[known]} as before in this run, not {_KINDS[dtype]}")
