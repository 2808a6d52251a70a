"""The states of the random number generators a training draws from."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def capture(devices: Sequence[torch.device] | None = None) -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, as far as the libraries are loaded.

    Args:
        devices: Those whose numbers are drawn; all GPUs where None. No other GPU is asked, which would open a context
            on it.
    """
    states: dict[str, Any] = {"python": random.getstate()}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        states["numpy"] = numpy.random.get_state(legacy=False)
    if torch is not None:
        states["torch"] = torch.get_rng_state()
        if devices is not None:
            gpus = {_number(device) for device in devices if device.type == "cuda"}
            states["cuda"] = {gpu: torch.cuda.get_rng_state(gpu) for gpu in gpus}
        elif torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def check(states: dict[str, Any]) -> None:
    """Try the states on generators of our own.

    Raises:
        ValueError: One is no state of its generator.
    """
    try:
        random.Random().setstate(states["python"])
        if "numpy" in states:
            import numpy as np

            np.random.RandomState().set_state(states["numpy"])
        if "torch" in states:
            import torch

            torch.Generator().set_state(states["torch"])
    except Exception as error:  # each library has its own kinds
        raise ValueError(f"the state of the random number generators is unusable: {error}") from error


def restore(states: dict[str, Any]) -> None:
    """Set the global generators; a GPU that is not here any more is passed over."""
    random.setstate(states["python"])
    if "numpy" in states:
        import numpy as np

        np.random.set_state(states["numpy"])
    if "torch" in states:
        import torch

        torch.set_rng_state(states["torch"])
        cuda: Any = states.get("cuda", {})
        for gpu, state in cuda.items() if isinstance(cuda, dict) else enumerate(cuda):
            if gpu < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, gpu)


@contextmanager
def randomness_kept(*devices: torch.device, seed: int | None = None) -> Iterator[None]:
    """Have what is drawn inside drawn again after it.

    Args:
        *devices: Those whose numbers are drawn, beside the CPU's; no other GPU is asked.
        seed: What the numbers inside begin with; None to go on from where they stand.
    """
    states = capture(devices)
    try:
        if seed is not None:
            seeded(seed, *devices)
        yield
    finally:
        restore(states)


def seeded(seed: int, *devices: torch.device) -> None:
    """Begin the random numbers anew: Python's, numpy's, torch's on the CPU and on the devices."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    for gpu in {_number(device) for device in devices if device.type == "cuda"}:
        torch.cuda.default_generators[gpu].manual_seed(seed)


def _number(gpu: torch.device) -> int:
    """The number of a GPU; of one without, that of the current one."""
    import torch

    return torch.cuda.current_device() if gpu.index is None else gpu.index


def generator_state(thing: Any) -> tuple[str, Any] | None:
    """(kind, state) of a generator object: `random.Random`, numpy's two kinds, `torch.Generator`; else None."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if isinstance(thing, random.Random):
        return "random.Random", thing.getstate()
    if numpy is not None and isinstance(thing, numpy.random.Generator):
        return f"numpy.Generator.{type(thing.bit_generator).__name__}", thing.bit_generator.state
    if numpy is not None and isinstance(thing, numpy.random.RandomState):
        return "numpy.RandomState", thing.get_state(legacy=False)
    if torch is not None and isinstance(thing, torch.Generator):
        return "torch.Generator", thing.get_state()
    return None


def set_generator_state(thing: Any, state: Any) -> None:
    """Set a generator object to a state that `generator_state` gave."""
    if isinstance(thing, random.Random):
        thing.setstate(state)
    elif hasattr(thing, "bit_generator"):
        thing.bit_generator.state = state
    else:
        thing.set_state(state)
