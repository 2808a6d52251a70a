"""Every option that more than one command has, spelled once.

A group's `arguments()` are the keyword arguments of the library function behind the command: options and Python
arguments share their names.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from xaicli import words
from xaicli.errors import UsageError
from xaicli.files import local
from xaicli.vocabulary import SAMPLE_ID, Attempts, Axis, Bounds, Duplicates, Engine, Format, Mode

DATA = "Selection"
SAMPLES = "Samples"
OUTPUT = "Output"


def local_path(path: Path | None) -> Path | None:
    """A path of this machine, of which `~` is the user's folder also where no shell has said so; no address.

    Raises:
        UsageError: It is an address, or there is no such user.
    """
    if path is None:
        return None
    try:
        return local(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}", hint=f"./{path} is a folder of that name") from error


def split_commas(option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """`--metric loss,margin --metric el2n` means three metrics; `"a,c"` in double quotes is one.

    Raises:
        UsageError: The option was given and names nothing, as where a script's variable is empty.
    """
    return _items(option, values, words.split)


def split_one(context: typer.Context, option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """As `split_commas`, of an option that other commands take several of, and this one cannot.

    Raises:
        UsageError: It was given several, or nothing.
    """
    return _only_one(context, option, split_commas(option, values))


def not_again(context: typer.Context, option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """One value as it is, commas and all, of an option that other commands take several of.

    Raises:
        UsageError: It was given again: the last alone would count.
    """
    return _only_one(context, option, values or None)


def split_epoch(context: typer.Context, option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """The one epoch, a whole number, of an option by which other commands take several, in words too.

    Raises:
        UsageError: It was given several, nothing, or no number.
    """
    found = split_one(context, option, values)
    if found is None or found[0].removeprefix("-").isdecimal():
        return found
    if _is_default(context, option):
        return None
    raise UsageError(f"{option.opts[0]} {found[0]!r} is no whole number", hint=f"one epoch: {option.opts[0]} 3")


def _is_default(context: typer.Context, option: typer.CallbackParam) -> bool:
    """Whether what an option has was said in a variable or a settings file, and so for other commands as well."""
    source = context.get_parameter_source(str(option.name))
    return source is not None and source.name != "COMMANDLINE"


def _only_one(context: typer.Context, option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    several = list(dict.fromkeys(values or ()))
    if len(several) > 1:
        if _is_default(context, option):
            return None
        raise UsageError(
            f"{option.opts[0]} takes one here, not {len(several)}: {', '.join(several)}",
            hint=f"{option.opts[0]} {words.quoted(several[0], special=',')}, and ask again for another",
        )
    return several or None


def split_ds_ids(option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """As `split_commas`; an empty text is the data set without a name, as the rows spell it."""
    return [""] if values and not "".join(values).strip() else split_commas(option, values)


def split_pairs(option: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """The `NAME=VALUE` items of an option, their quotes untouched: `words.split_pair` takes one apart."""
    return _items(option, values, words.split_raw)


def _items(
    option: typer.CallbackParam, values: list[str] | None, split: Callable[[str], list[str]]
) -> list[str] | None:
    found = [item for value in values or () for item in split(str(value))]
    if values and not found:
        raise UsageError(f"{option.opts[0]} names nothing", hint="leave it out for the default")
    return found or None


_LISTED: ContextVar[tuple[Path, ...]] = ContextVar("listed", default=())


def files_of_ids() -> tuple[Path, ...]:
    """The files that `--ids @FILE` of the command that starts has read; those of the next are new."""
    listed = _LISTED.get()
    _LISTED.set(())
    return listed


def read_ids(values: list[str] | None) -> list[str] | None:
    """The ids of `--ids`: a list, `@FILE` with one id a line, or `-` for standard input.

    Raises:
        UsageError: The file cannot be read, is no text, or no id is given, as where a script's variable is empty.
    """
    if not values:
        return None
    ids: list[str] = []
    for value in values:
        if value == "-":
            if sys.stdin is None:
                raise UsageError("--ids -: standard input is closed", hint="name a file: --ids @FILE")
            stream = getattr(sys.stdin, "buffer", None)
            ids += ids_of_text(sys.stdin.read() if stream is None else stream.read(), "-")
        elif value.startswith("@"):
            try:
                ids += _ids_of_file(Path(value[1:]), value)
                _LISTED.set((*_LISTED.get(), Path(value[1:])))
            except OSError as error:
                raise UsageError(f"--ids {value}: {error.strerror}", hint="one id a line") from error
        else:
            ids += words.split(value)
    if not ids:
        raise UsageError(f"--ids {' '.join(values)}".rstrip() + " names nothing", hint="leave it out to list none")
    return ids


def ids_of_text(content: bytes | str, source: str) -> list[str]:
    """The ids in a file: one a line, or the column `sample_id` of comma-separated values, with its mode and ds_id.

    Args:
        content: UTF-8, or UTF-16 as its byte order mark says.
        source: Where it is from, for the error.

    Raises:
        UsageError: It is no such text.
    """
    from xaicli.tables.lists import columns_of_text, decoded, ids_of_columns

    if isinstance(content, bytes):
        try:
            content = decoded(content)
        except UnicodeDecodeError as error:
            raise UsageError(f"--ids {source} is no UTF-8 text: {error.reason}", hint="one id a line") from error
        if "\0" in content:
            hint = "one id a line, in UTF-8, or in UTF-16 with its byte order mark"
            raise UsageError(f"--ids {source} is no text: it holds zero bytes", hint=hint)
    return ids_of_columns(columns_of_text(content), source if source != "-" else "")


def _ids_of_file(path: Path, source: str) -> list[str]:
    """The ids of a file: text or CSV whatever it is called, and the other lists that are written by their suffix.

    Raises:
        OSError: It cannot be read.
        UsageError: It is no list.
    """
    if path.suffix.lower() not in (".parquet", ".pq", ".json", ".jsonl", ".ndjson"):
        return ids_of_text(path.read_bytes(), source)
    from xaicli.tables.lists import ids_of_columns, read_columns

    path.stat()
    columns = read_columns(path)
    if SAMPLE_ID not in columns:
        raise UsageError(f"--ids {source} has no column sample_id", hint=f"its columns: {', '.join(columns)}")
    return ids_of_columns(columns, source)


def choices(enum: type[StrEnum]) -> str:
    """The values of an enum for a help text."""
    return ", ".join(enum)


class OptionGroup:
    """A frozen dataclass of options."""

    def arguments(self) -> dict[str, Any]:
        """The options as keyword arguments."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}


RunDir = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN_DIR",
        show_default=False,
        help="The run or its address (s3://...) [default: $XAI_RUN, this folder if a run, the newest below ./runs].",
    ),
]


Strict = Annotated[
    bool, typer.Option("--strict", help="Fail on a damaged file instead of leaving it out.", rich_help_panel=DATA)
]
EngineOption = Annotated[str, typer.Option(help=f"What runs the query: {choices(Engine)}.", rich_help_panel=DATA)]
SparkRemote = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A Spark Connect server (sc://...).", rich_help_panel=DATA, show_default=False),
]
FactsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Facts of the samples beside those recorded: CSV, Parquet or JSON lines with sample_id. Several times for "
        "several files, the last of which counts.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
NoFacts = Annotated[
    bool, typer.Option("--no-facts", help="Know no facts of the samples (private data).", rich_help_panel=DATA)
]
AttemptsOption = Annotated[
    str,
    typer.Option(
        help="Rows that a later attempt took back: last leaves them out, all counts them.", rich_help_panel=DATA
    ),
]
AxisOption = Annotated[
    str, typer.Option(help=f"What pictures over time are drawn over: {choices(Axis)}.", rich_help_panel=OUTPUT)
]
KeptModes = Annotated[
    list[str] | None,
    typer.Option(
        callback=split_commas,
        help=f"Kept inputs of these modes: {choices(Mode)}, all, or !MODE for the others [default: all].",
        rich_help_panel=SAMPLES,
        show_default=False,
    ),
]
KeptDsIds = Annotated[
    list[str] | None,
    typer.Option(
        callback=split_ds_ids,
        help="Kept inputs of these data sets, or !ID for all but one [default: all].",
        rich_help_panel=SAMPLES,
        show_default=False,
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Option(
        callback=read_ids,
        metavar="LIST|@FILE|-",
        help="Samples by id.",
        rich_help_panel=SAMPLES,
        show_default=False,
    ),
]


@dataclasses.dataclass(frozen=True)
class Selection(OptionGroup):
    """Which rows a question is about."""

    metric: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            help="Metrics (repeat or comma) [default: loss, else the only one].",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None
    mode: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            help=f"Modes: {choices(Mode)}, all, or !MODE for the others [default: eval].",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None
    ds_id: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_ds_ids,
            help="Dataset ids ('' is the one without a name), or !ID for all but one [default: all, never pooled].",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None
    epoch: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            help="Epochs: numbers, ranges LO-HI, first, last [default: all].",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None
    epoch_frequency: Annotated[int, typer.Option(help="Use every N-th epoch only.", rich_help_panel=DATA)] = 1
    label_key: Annotated[
        str, typer.Option(help="The column or fact that groups samples: label, prediction, ...", rich_help_panel=DATA)
    ] = "label"
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_pairs,
            help="NAME=VALUE,...: names labels and limits rows to them.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None
    duplicates: Annotated[
        str, typer.Option(help=f"Rows of one sample in one epoch: {choices(Duplicates)}.", rich_help_panel=DATA)
    ] = Duplicates.LAST.value
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Only rows that meet this, of columns and facts: 'loss > 2 AND label = 3'.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None
    facts: FactsOption = None
    no_facts: NoFacts = False
    attempts: AttemptsOption = Attempts.LAST.value
    strict: Strict = False


@dataclasses.dataclass(frozen=True)
class EngineChoice(OptionGroup):
    """What runs the query."""

    engine: EngineOption = Engine.POLARS.value
    spark_remote: SparkRemote = None


@dataclasses.dataclass(frozen=True)
class SampleChoice(OptionGroup):
    """Which samples are shown."""

    max: Annotated[int, typer.Option(metavar="N", help="The N highest samples.", rich_help_panel=SAMPLES)] = 5
    min: Annotated[int, typer.Option(metavar="N", help="The N lowest samples.", rich_help_panel=SAMPLES)] = 5
    ids: Ids = None
    stat: Annotated[
        str,
        typer.Option(
            help="The score of a sample: last, first, mean, min, max, std, slope, or a statistic of dynamics.",
            rich_help_panel=SAMPLES,
        ),
    ] = "last"
    complete_only: Annotated[
        bool,
        typer.Option(
            "--complete-only",
            help="Leave samples without a finite value in the last epoch out of the top and bottom; listed ones stay.",
            rich_help_panel=SAMPLES,
        ),
    ] = False


@dataclasses.dataclass(frozen=True)
class Amount(OptionGroup):
    """How many samples a rule takes."""

    n: Annotated[
        int | None,
        typer.Option(
            "--n", metavar="N", help="How many of each mode and data set.", rich_help_panel=SAMPLES, show_default=False
        ),
    ] = None
    share: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Which share of them instead: 0.1.", rich_help_panel=SAMPLES, show_default=False
        ),
    ] = None
    per_label: Annotated[bool, typer.Option("--per-label", help="So many of each label.", rich_help_panel=SAMPLES)] = (
        False
    )
    seed: Annotated[int, typer.Option(help="Of every draw.", rich_help_panel=SAMPLES)] = 0


Truth = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV, Parquet or JSON with sample_id and the true label, or mislabelled (0/1): scores every ranking.",
    ),
]
EarlyEpochs = Annotated[
    int, typer.Option(metavar="N", help="el2n is the mean over the first N observations of a sample.")
]

BurnIn = Annotated[int, typer.Option(metavar="N", help="Changes of rank that end in the first N epochs do not count.")]

BoundsOption = Annotated[
    list[str],
    typer.Option(callback=split_commas, help=f"Bands around the mean: {choices(Bounds)}; one picture each."),
]


Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print written paths, or --json, only.", rich_help_panel=OUTPUT)
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bars.", rich_help_panel=OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=OUTPUT)]
"""Read by the error boundary; a command itself has no use for it."""


@dataclasses.dataclass(frozen=True)
class Output(OptionGroup):
    """Where an answer goes and how."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=local_path,
            metavar="DIR",
            help="Folder for written files [default: RUN_DIR/reports].",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None
    format: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            metavar="LIST",
            help=f"Files to write: {choices(Format)}.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None
    json: Json = False
    quiet: Quiet = False
    open: Annotated[bool, typer.Option("--open", help="Open the page in a browser.", rich_help_panel=OUTPUT)] = False
    no_images: Annotated[
        bool, typer.Option("--no-images", help="No thumbnails (private data).", rich_help_panel=OUTPUT)
    ] = False
    no_progress: NoProgress = False
    debug: Debug = False
