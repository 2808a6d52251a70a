"""Write `commands.md` and the man page `xai.1` from the help of every command: `python docs/make_commands.py`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

HERE = Path(__file__).parent
_WIDTH = "100"
_INTRODUCTION = """# Commands

Made by `make docs` from each command's `--help`.

An option can have a default of your own: a flag wins over the variable the help names, that over a settings file in
the current folder, `xai.toml` or `[tool.xai]` in `pyproject.toml`. Keys are the options' names; a table of a command's
name is for that command alone:

```toml
[tool.xai]
metric = ["loss", "margin"]

[tool.xai.samples]
max = 10
```

A default counts where it applies: what a question has no use for, or what does not go with an option said nearer to
it, is passed over, and so is a value that this command does not take and another does: `group` where one run is shown,
or where `compare` would have each of its groups be one run, and a single `group` for `compare`. So is a name that the
run has, and not for this question: a step of other rows, an epoch that a table lacks, a mode or data set of the rows
that no scalar is of, any mode where no scalar has one. Typed, it is an error. A name that the run does not have, a
pattern of `group` that matches none of several runs, or `!NAME` of all there is, is one wherever it was said, and the
error says where.

Lists have commas between their values. A value that holds a comma goes in double quotes, a quote in it doubled:
`--metric '"a,c",loss'`, `--label-map 'x="a,b"'`; `--ds-id '""'` is the data set without a name;
a mode named that has none of the data sets asked for is left out with a warning. `--ids @FILE` reads one
id a line, or the column `sample_id` of a CSV file, in UTF-8 or UTF-16. In all lists of ids a line that begins with `# `
is a remark, in CSV above the heading or where `sample_id` is the first column; where every id is a number, so are a
line that begins with `#` and what follows ` #` behind an id. In double quotes it is none. The answer comes even where
its files cannot be written: then the error is last, and the exit status 1. No command replaces a file that it reads.

Exit status: 0 done, 1 the data or a fault, 2 wrong usage, 130 interrupted. Answers go to standard output, everything
else to standard error. `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb` are obeyed.
"""


def help_of(*command: str) -> str:
    """What `xai COMMAND --help` prints, 100 columns wide, without colour."""
    from xaicli.cli import main

    os.environ.update(COLUMNS=_WIDTH, _TYPER_FORCE_DISABLE_TERMINAL="1")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([*command, "--help"])
    return out.getvalue().rstrip()


def commands() -> list[tuple[str, ...]]:
    """Every command and, behind a group, its sub-commands."""
    from xaicli.cli import build

    found: list[tuple[str, ...]] = []
    for name, command in build().commands.items():
        found.append((name,))
        found += [(name, sub) for sub in getattr(command, "commands", {})]
    return found


def markdown() -> str:
    """The page of all commands."""
    blocks = [("xai", help_of())] + [(f"xai {' '.join(command)}", help_of(*command)) for command in commands()]
    parts = [
        f"## {title}\n\n" + "\n".join(f"    {line}".rstrip() for line in text.split("\n")) for title, text in blocks
    ]
    return f"{_INTRODUCTION}\n" + "\n\n".join(parts) + "\n"


def man_page() -> str:
    """The same as a man page."""
    lines = ['.TH XAI 1 "" "xai" "User Commands"', ".SH NAME", "xai \\- the flight recorder for PyTorch training"]
    lines += [".SH SYNOPSIS", ".B xai", "[\\-\\-version] COMMAND [RUN_DIR] ..."]
    for title, command in [("xai", ()), *((f"xai {' '.join(command)}", command) for command in commands())]:
        body = help_of(*command).replace("\\", "\\e").replace("-", "\\-")
        quoted = "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in body.split("\n"))
        lines += [f'.SH "{title.upper()}"', ".nf", quoted, ".fi"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "commands.md").write_text(markdown(), encoding="utf-8")
    (HERE / "xai.1").write_text(man_page(), encoding="utf-8")
