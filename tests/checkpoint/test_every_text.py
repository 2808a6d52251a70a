"""No text in a graph reaches torch unchecked: a payload put anywhere is refused or left out."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint import hostile
from xaicli.checkpoint.archive import Archive
from xaicli.checkpoint.package import open_package
from xaicli.errors import XaiError

PAYLOAD = "__import__('pathlib').Path('ran').touch()"

Steps = tuple[Any, ...]


ODD_VALUES: tuple[Any, ...] = (None, -1, 10**30, 1.5, True, [], {}, "x", [[]], {"as_int": -7})


def leaves(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    """Where any value stands, containers included; one place of each list only."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value[:1]))
        if isinstance(value, list)
        else []
    )
    for step, item in items:
        yield (*steps, step)
        yield from leaves(item, (*steps, step))


def places(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, bool]]:
    """Where a text stands in a JSON value, and whether it is a key; one place of each list only."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*steps, key), True
            yield from places(item, (*steps, key))
    elif isinstance(value, list):
        shapes = set()
        for position, item in enumerate(value):
            shape = json.dumps(_outline(item))
            if shape not in shapes:
                shapes.add(shape)
                yield from places(item, (*steps, position))
    elif isinstance(value, str):
        yield steps, False


def _outline(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _outline(item) for key, item in value.items()}
    return [_outline(item) for item in value[:1]] if isinstance(value, list) else type(value).__name__


def changed(content: Any, steps: Steps, is_key: bool, value: Any = PAYLOAD) -> Any:
    content = copy.deepcopy(content)
    place = content
    for step in steps[:-1]:
        place = place[step]
    if is_key:
        place[value] = place.pop(steps[-1])
    else:
        place[steps[-1]] = value
    return content


@pytest.mark.parametrize("name", [hostile.GRAPH, hostile.WEIGHTS])
def test_a_payload_anywhere_is_refused_or_left_out(name: str, pt2: Path) -> None:
    members = hostile.members_of(pt2.read_bytes())
    content = json.loads(members[name])
    tried = survived = 0
    for steps, is_key in places(content):
        members[name] = json.dumps(changed(content, steps, is_key)).encode()
        tried += 1
        try:
            with Archive(io.BytesIO(hostile.archive_of(members)), "model.pt2") as archive:
                rebuilt = open_package(archive).rebuilt
        except XaiError:
            continue
        survived += 1
        assert PAYLOAD.encode() not in rebuilt, steps
    assert tried > 50
    assert survived < tried


@pytest.mark.parametrize("name", [hostile.GRAPH, hostile.WEIGHTS, hostile.CONSTANTS])
def test_values_of_another_kind_never_crash(name: str, pt2: Path) -> None:
    members = hostile.members_of(pt2.read_bytes())
    content = json.loads(members[name])
    for number, steps in enumerate(leaves(content)):
        value = ODD_VALUES[number % len(ODD_VALUES)]
        members[name] = json.dumps(changed(content, steps, False, value)).encode()
        with contextlib.suppress(XaiError), Archive(io.BytesIO(hostile.archive_of(members)), "model.pt2") as archive:
            open_package(archive)
