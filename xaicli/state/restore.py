"""What a training hands over to be saved, and how it gets it back: everything checked first, nothing half done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xaicli.state.keepers import Keeper, ModelKeeper, OptimizerKeeper, keeper_of

Things = Mapping[str, Any] | None
"""{name: thing}; the names are the caller's and the same on saving and on loading."""

_GROUPS = {"objects": keeper_of, "optimizers": OptimizerKeeper, "models": ModelKeeper}
"""In the order of restoring: what may refuse comes before what is large."""


class Belongings:
    """The caller's models, optimizers and other objects."""

    def __init__(self, models: Things, optimizers: Things, objects: Things) -> None:
        """
        Raises:
            TypeError: One of the three is no mapping.
            ValueError: A thing could not be restored.
        """
        given = {"models": models, "optimizers": optimizers, "objects": objects}
        for group, things in given.items():
            if not isinstance(things, Mapping | None):
                raise TypeError(f"{group} must be a dict {{name: thing}}, not a {type(things).__name__}")
        self._keepers = {
            group: {str(name): make(f"{group}[{name!r}]", thing) for name, thing in (given[group] or {}).items()}
            for group, make in _GROUPS.items()
        }

    def capture(self) -> dict[str, Any]:
        """The states, {group: {name: {"kind", "value"}}}."""
        return {
            group: {name: {"kind": keeper.kind, "value": keeper.capture()} for name, keeper in keepers.items()}
            for group, keepers in self._keepers.items()
        }

    def match(self, state: Mapping[str, Any]) -> list[tuple[Keeper, Any]]:
        """Each thing with its saved state; warns of saved models and optimizers that nobody asked for.

        Raises:
            ValueError: The state does not hold a thing, or holds one of another kind under its name.
        """
        pairs = []
        for group, keepers in self._keepers.items():
            saved = state.get(group, {})
            for name, keeper in keepers.items():
                if name not in saved:
                    raise keeper.fail(f"it is not in the state, which holds: {', '.join(saved) or 'none'}")
                if saved[name]["kind"] != keeper.kind:
                    raise keeper.fail(f"it is a {keeper.kind} but was saved as a {saved[name]['kind']}")
                pairs.append((keeper, saved[name]["value"]))
            unclaimed = [name for name in saved if name not in keepers and saved[name]["kind"] != "data"]
            if unclaimed:
                warnings.warn(f"the state also holds {group} {', '.join(unclaimed)}: not restored", stacklevel=3)
        return pairs


def plain_data(state: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data among the saved objects, {name: value}."""
    return {name: saved["value"] for name, saved in state.get("objects", {}).items() if saved["kind"] == "data"}


def restore_all(pairs: Sequence[tuple[Keeper, Any]], *, then: Callable[[], None]) -> None:
    """Check every state, then take all over; whatever fails, all is as it was.

    Args:
        pairs: Each thing with its saved state.
        then: Called last; if it fails, all is undone too.

    Raises:
        ValueError: A state does not fit, or a thing refused it.
    """
    for keeper, state in pairs:
        keeper.check(state)
    undo = [(keeper, keeper.snapshot()) for keeper, _ in pairs]
    begun = 0
    try:
        for keeper, state in pairs:
            begun += 1
            keeper.apply(state)
        then()
    except BaseException as error:
        for keeper, before in reversed(undo[:begun]):
            keeper.undo(before)
        if isinstance(error, Exception):
            raise keeper.fail(f"it refused the saved state ({type(error).__name__}: {error})") from error
        raise
