"""Where samples come from: kept inputs of a run, files, or the user's own factory."""

from xaicli.sources.inputs import Inputs, Source
from xaicli.sources.opening import open_source

__all__ = ["Inputs", "Source", "open_source"]
