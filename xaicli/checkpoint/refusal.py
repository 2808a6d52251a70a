"""The error for a checkpoint that is not loaded because of what it holds, and what to type instead."""

from __future__ import annotations

from os import PathLike

from xaicli.errors import XaiError


class RefusedError(XaiError):
    """A file that could run code, or take memory without end, when loaded; nothing of it was loaded.

    Args:
        path: The file as the user named it.
        thing: What it holds that is not loaded.
        hint: What to try.
    """

    def __init__(self, path: str | PathLike[str], thing: str, *, hint: str) -> None:
        super().__init__(f"{path} is not loaded: it holds {thing}", hint=hint)
        self.thing = thing


def refused(path: str | PathLike[str], thing: str, *, hint: str = "") -> RefusedError:
    """The refusal of a file, naming the offending thing in it.

    Args:
        path: The file as the user named it.
        thing: What it holds that is not loaded ("pickled weights (data/weights/weight_0)").
        hint: What to try; by default how to look into the file and how to convert it where it is trusted.
    """
    return RefusedError(path, thing, hint=hint or convert_hint(path))


def convert_hint(path: str | PathLike[str]) -> str:
    """How to turn a file that can run code into one that cannot."""
    return (
        f"see what it would run: xai checkpoint inspect {path}; "
        f"if you trust whoever made it, convert it once: xai checkpoint convert {path} --trust-checkpoint"
    )
