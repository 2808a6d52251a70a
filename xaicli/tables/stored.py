"""What a run says of the columns of its tables."""

from __future__ import annotations

import json

from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.tables.schema import CategoricalLabel, Schema, from_json

_MOST_CLASSES = 1 << 20


def stored_schemas(layout: RunLayout, table: str) -> dict[str, Schema]:
    """The schemas of a table's columns; none where they cannot be read, the columns being readable without them."""
    path = layout.table_folder(table) / "schema.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): from_json(facts) for name, facts in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError, XaiError):
        return {}


def class_names(layout: RunLayout, table: str, column: str) -> tuple[str, ...]:
    """The names of the classes 0, 1, 2, ... of a column, `id:1` for one without; none if it holds no classes."""
    schema = stored_schemas(layout, table).get(column)
    if not isinstance(schema, CategoricalLabel) or not schema.names:
        return ()
    return tuple(schema.show(value) for value in range(min(max(schema.names) + 1, _MOST_CLASSES)))
