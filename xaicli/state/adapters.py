"""What a training hands over to be saved, and how it gets it back: all is checked first, nothing is half done.

An `Adapter` of each kind of thing captures its state, refuses one that does not fit before anything has changed, takes
one over, and can undo that.
"""

from __future__ import annotations

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from xaicli.state import randomness


def differences(here: Mapping[str, Any], saved: Mapping[str, Any]) -> tuple[str, str]:
    """The names that are only here, and those that are only there, in words."""
    missing = [name for name in here if name not in saved]
    unexpected = [name for name in saved if name not in here]
    return _listed(missing), _listed(unexpected)


def _listed(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a torch tensor."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    arrays = [kind for kind in (numpy and numpy.ndarray, torch and torch.Tensor) if kind]
    return isinstance(value, tuple(arrays))


def is_module(thing: Any) -> bool:
    """Whether a thing is a `torch.nn.Module`."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array or tensor; None of anything else."""
    return tuple(value.shape) if is_array(value) else None


def in_words(value: Any) -> str:
    """What a value is, for a message."""
    return f"of shape {list(value.shape)}" if is_array(value) else f"a {type(value).__name__}"


def fill(array: Any, values: Any) -> None:
    """Put values into an array or tensor of their shape."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        with torch.no_grad():
            array.copy_(torch.as_tensor(values))
    else:
        array[...] = values


_WRAPPERS = ("module.", "_orig_mod.")
"""What `DistributedDataParallel` and `torch.compile` put before every name."""

_LIKE_PARAMETER = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_inf",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
        "sum",
    }
)
"""What torch's optimizers keep in the shape of the parameter itself."""


class Adapter(ABC):
    """One thing whose state is saved and restored."""

    kind: str

    def __init__(self, where: str, thing: Any) -> None:
        self.where = where
        self.thing = thing

    @abstractmethod
    def capture(self) -> Any:
        """The state, to be encoded."""

    @abstractmethod
    def check(self, state: Any) -> None:
        """Raise ValueError for a state that does not fit; change nothing."""

    @abstractmethod
    def apply(self, state: Any) -> None:
        """Take the state over."""

    def snapshot(self) -> Any:
        """What undoes `apply`; shares no memory that `apply` writes to."""
        return deepcopy(self.capture())

    def undo(self, before: Any) -> None:
        """Put back what `snapshot` gave."""
        self.apply(before)

    def fail(self, what: str) -> ValueError:
        return ValueError(f"{self.where}: {what}; nothing was restored")


class ModelAdapter(Adapter):
    """A module by its state dict, under the names it has without `DistributedDataParallel` and `torch.compile`."""

    kind = "model"

    def capture(self) -> Any:
        return {name: value for name, (_, value) in self._named().items()}

    def check(self, state: Any) -> None:
        here = {name: value for name, (_, value) in self._named().items()}
        if not isinstance(state, dict):
            raise self.fail("the saved state is no state dict")
        missing, unexpected = differences(here, state)
        if missing or unexpected:
            raise self.fail(f"the saved names differ; missing: {missing or 'none'}, unexpected: {unexpected or 'none'}")
        for name, value in here.items():
            if shape_of(value) != shape_of(state[name]):
                raise self.fail(f"{name} is {in_words(value)} but was saved as {in_words(state[name])}")

    def apply(self, state: Any) -> None:
        names = {name: full for name, (full, _) in self._named().items()}
        self.thing.load_state_dict({names[name]: value for name, value in state.items()})

    def snapshot(self) -> Any:
        return {
            name: value.detach().cpu().clone() if hasattr(value, "detach") else deepcopy(value)
            for name, value in self.capture().items()
        }

    def _named(self) -> dict[str, tuple[str, Any]]:
        """{plain name: (full name, value)}."""
        full = self.thing.state_dict()
        prefix = ""
        while full:
            wrapper = next((w for w in _WRAPPERS if all(name.startswith(prefix + w) for name in full)), None)
            if wrapper is None:
                break
            prefix += wrapper
        return {name.removeprefix(prefix): (name, value) for name, value in full.items()}


class OptimizerAdapter(Adapter):
    """An optimizer by its state dict; the parameters it works on must be as many and of the same shapes."""

    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.kind = f"optimizer {type(thing).__name__}"

    def capture(self) -> Any:
        return self.thing.state_dict()

    def check(self, state: Any) -> None:
        groups = getattr(self.thing, "param_groups", None)
        if groups is None:
            return
        try:
            saved = [len(group["params"]) for group in state["param_groups"]]
            states = dict(state["state"])
        except (KeyError, TypeError, ValueError):
            raise self.fail("the saved state is none of an optimizer") from None
        here = [len(group["params"]) for group in groups]
        if here != saved:
            raise self.fail(f"its parameter groups hold {here} parameters but were saved with {saved}")
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        parameters = [parameter for group in groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            held = states.get(number)
            for name, value in (held or {}).items() if isinstance(held, dict | None) else ():
                if name in _LIKE_PARAMETER and shape_of(value) not in (None, shape_of(parameter)):
                    raise self.fail(f"{name} of parameter {number} is for {in_words(value)}, not {in_words(parameter)}")

    def apply(self, state: Any) -> None:
        self.thing.load_state_dict(state)

    def snapshot(self) -> Any:
        # Optimizers replace their states on loading, so the old ones need no copy.
        return self.thing.state_dict()


class StatefulAdapter(Adapter):
    """Anything with `state_dict` and `load_state_dict`: a scheduler, a scaler, a data loader."""

    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.kind = f"state_dict of {type(thing).__name__}"

    def capture(self) -> Any:
        return self.thing.state_dict()

    def check(self, state: Any) -> None:
        _check_shapes(self, self.thing.state_dict(), state, "")

    def apply(self, state: Any) -> None:
        self.thing.load_state_dict(state)


class GeneratorAdapter(Adapter):
    """A random number generator object."""

    def __init__(self, where: str, thing: Any) -> None:
        super().__init__(where, thing)
        self.kind = f"generator {randomness.generator_state(thing)[0]}"  # type: ignore[index]

    def capture(self) -> Any:
        return randomness.generator_state(self.thing)[1]  # type: ignore[index]

    def check(self, state: Any) -> None:
        """The kind of generator is all there is to check; one that refuses is undone."""

    def apply(self, state: Any) -> None:
        randomness.set_generator_state(self.thing, state)


class PlainAdapter(Adapter):
    """Plain data: dicts, lists, sets, arrays and tensors are filled in place, other values can only be returned."""

    kind = "data"

    def capture(self) -> Any:
        return self.thing

    def check(self, state: Any) -> None:
        container = next((kind for kind in (dict, list, set) if isinstance(self.thing, kind)), None)
        if container is not None and not isinstance(state, container):
            raise self.fail(f"it is a {type(self.thing).__name__} but was saved as a {type(state).__name__}")
        if container is None and shape_of(self.thing) != shape_of(state):
            raise self.fail(f"it is {in_words(self.thing)} but was saved as {in_words(state)}")

    def apply(self, state: Any) -> None:
        if isinstance(self.thing, dict | set):
            self.thing.clear()
            self.thing.update(state)
        elif isinstance(self.thing, list):
            self.thing[:] = state
        elif shape_of(self.thing) is not None and is_array(self.thing):
            fill(self.thing, state)


class RandomnessAdapter(Adapter):
    """The global random number generators."""

    kind = "random"

    def capture(self) -> Any:
        return randomness.capture()

    def check(self, state: Any) -> None:
        randomness.check(state)

    def apply(self, state: Any) -> None:
        randomness.restore(state)


def adapter_of(where: str, thing: Any) -> Adapter:
    """The adapter of one of the caller's `objects`.

    Raises:
        ValueError: It has a `state_dict` but no `load_state_dict`.
    """
    if hasattr(thing, "state_dict") and not isinstance(thing, type):
        if not hasattr(thing, "load_state_dict"):
            raise ValueError(f"{where} has state_dict but no load_state_dict: it could never be restored")
        return ModelAdapter(where, thing) if is_module(thing) else StatefulAdapter(where, thing)
    if randomness.generator_state(thing) is not None:
        return GeneratorAdapter(where, thing)
    return PlainAdapter(where, thing)


def _check_shapes(adapter: Adapter, here: Any, saved: Any, path: str) -> None:
    """Arrays that both states have under the same name must be of one shape; other content may differ."""
    if isinstance(here, dict) and isinstance(saved, dict):
        for key in here.keys() & saved.keys():
            _check_shapes(adapter, here[key], saved[key], f"{path}[{key!r}]")
    elif is_array(here) and is_array(saved) and shape_of(here) != shape_of(saved):
        raise adapter.fail(f"{path} is {in_words(here)} but was saved as {in_words(saved)}")


Things = Mapping[str, Any] | None
"""{name: thing}; the names are the caller's and the same on saving and on loading."""


def _model_adapter(where: str, thing: Any) -> Adapter:
    _check_stateful(where, thing, "a model is a torch.nn.Module, as it is trained")
    return ModelAdapter(where, thing)


def _optimizer_adapter(where: str, thing: Any) -> Adapter:
    _check_stateful(where, thing, "an optimizer is an object such as torch.optim.SGD(model.parameters())")
    return OptimizerAdapter(where, thing)


def _check_stateful(where: str, thing: Any, what: str) -> None:
    """
    Raises:
        ValueError: It is nothing that has a state of its own.
    """
    found = f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"
    if isinstance(thing, type) or not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
        raise ValueError(
            f"{where} is {found}, which cannot be saved or restored there: {what}; numbers, texts, lists, dicts and "
            "arrays go to objects={name: thing}"
        )


_GROUPS = {"objects": adapter_of, "optimizers": _optimizer_adapter, "models": _model_adapter}
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
        self._adapters = {
            group: {str(name): make(f"{group}[{name!r}]", thing) for name, thing in (given[group] or {}).items()}
            for group, make in _GROUPS.items()
        }

    def capture(self) -> dict[str, Any]:
        """The states, {group: {name: {"kind", "value"}}}."""
        return {
            group: {name: {"kind": adapter.kind, "value": adapter.capture()} for name, adapter in adapters.items()}
            for group, adapters in self._adapters.items()
        }

    def match(self, state: Mapping[str, Any]) -> list[tuple[Adapter, Any]]:
        """Each thing with its saved state; warns of saved models and optimizers that nobody asked for.

        Raises:
            ValueError: The state does not hold a thing, or holds one of another kind under its name.
        """
        pairs = []
        for group, adapters in self._adapters.items():
            saved = state.get(group, {})
            for name, adapter in adapters.items():
                if name not in saved:
                    raise adapter.fail(f"it is not in the state, which holds: {', '.join(saved) or 'none'}")
                if saved[name]["kind"] != adapter.kind:
                    raise adapter.fail(f"it is a {adapter.kind} but was saved as a {saved[name]['kind']}")
                pairs.append((adapter, saved[name]["value"]))
            unclaimed = [name for name in saved if name not in adapters and saved[name]["kind"] != "data"]
            if unclaimed:
                warnings.warn(f"the state also holds {group} {', '.join(unclaimed)}: not restored", stacklevel=3)
        return pairs


def plain_data(state: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data among the saved objects, {name: value}."""
    return {name: saved["value"] for name, saved in state.get("objects", {}).items() if saved["kind"] == "data"}


def restore_all(pairs: Sequence[tuple[Adapter, Any]], *, then: Callable[[], None]) -> None:
    """Check every state, then take all over; whatever fails, all is as it was.

    Args:
        pairs: Each thing with its saved state.
        then: Called last; if it fails, all is undone too.

    Raises:
        ValueError: A state does not fit, or a thing refused it.
    """
    for adapter, state in pairs:
        adapter.check(state)
    undo = [(adapter, adapter.snapshot()) for adapter, _ in pairs]
    begun = 0
    try:
        for adapter, state in pairs:
            begun += 1
            adapter.apply(state)
        then()
    except BaseException as error:
        for adapter, before in reversed(undo[:begun]):
            adapter.undo(before)
        if isinstance(error, Exception):
            raise adapter.fail(f"it refused the saved state ({type(error).__name__}: {error})") from error
        raise
