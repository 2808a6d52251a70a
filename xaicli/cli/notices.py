"""Warnings of the library as a user of the command line meets them: one line each on standard error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show what is meant for users (`UserWarning`) as `warning: ...`; what is meant for developers, not at all."""

    def show(message: Warning | str, *details: Any, **named: Any) -> None:
        from xaicli.render.text import printable

        del details, named
        print(f"warning: {printable(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        warnings.showwarning = show
        yield
