"""The options of the commands that load a model and data: spelled once, checked once."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from xaicli.cli.options import OptionGroup, split_commas
from xaicli.errors import UsageError

_MODEL = "Model and data"


@dataclasses.dataclass(frozen=True)
class Loading(OptionGroup):
    """What builds the model, which weights it gets, and where its inputs come from."""

    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            rich_help_panel=_MODEL,
            show_default=False,
            help="module:factory, pictures, .npz, .npy, Parquet or CSV [default: the inputs kept in the run].",
        ),
    ] = None
    arch: Annotated[
        str | None, typer.Option(metavar="MODULE:FACTORY", rich_help_panel=_MODEL, help="What builds the model.")
    ] = None
    arch_args: Annotated[
        str | None, typer.Option(metavar="JSON", rich_help_panel=_MODEL, help="Keyword arguments for --arch.")
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=_MODEL, help='Which weights, where a file has several ("ema").'),
    ] = None
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", rich_help_panel=_MODEL, help="Also load what can run code.")
    ] = False
    pythonpath: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", rich_help_panel=_MODEL, show_default=False, help="Folders to import from (repeat)."
        ),
    ] = None
    resize: Annotated[
        list[str] | None,
        typer.Option(
            metavar="H,W",
            callback=split_commas,
            rich_help_panel=_MODEL,
            show_default=False,
            help="Size of pictures, scaled and cut to the middle.",
        ),
    ] = None
    mean: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            callback=split_commas,
            rich_help_panel=_MODEL,
            show_default=False,
            help="Subtracted per channel.",
        ),
    ] = None
    std: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            callback=split_commas,
            rich_help_panel=_MODEL,
            show_default=False,
            help="Divided by per channel.",
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The options as keyword arguments, numbers as numbers.

        Raises:
            UsageError: `--resize`, `--mean` or `--std` holds something else than numbers.
        """
        return {
            **super().arguments(),
            "pythonpath": self.pythonpath or (),
            "resize": integers("resize", self.resize),
            "mean": floats("mean", self.mean),
            "std": floats("std", self.std),
        }


def integers(name: str, values: list[str] | None) -> list[int] | None:
    """The whole numbers of an option.

    Raises:
        UsageError: One is none.
    """
    return None if not values else [int(_number(name, value, whole=True)) for value in values]


def floats(name: str, values: list[str] | None) -> list[float] | None:
    """The numbers of an option.

    Raises:
        UsageError: One is none.
    """
    return None if not values else [_number(name, value) for value in values]


def _number(name: str, value: str, *, whole: bool = False) -> float:
    try:
        return int(value) if whole else float(value)
    except ValueError:
        raise UsageError(
            f"--{name} takes numbers, not {value!r}", hint=f"--{name} 25,7" if whole else f"--{name} 0.5"
        ) from None
