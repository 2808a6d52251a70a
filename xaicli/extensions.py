"""What other packages can bring: collectors, findings and importers, found by their entry points.

A package names its part in its own `pyproject.toml`, and it is there once the package is installed:

    [project.entry-points."xaicli.importers"]
    mlflow = "my_package.runs:MlflowRuns"

Ours are named here and loaded in the same way. A part that cannot be loaded costs nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from xaicli.errors import XaiError

COLLECTORS = "xaicli.collectors"
FINDINGS = "xaicli.findings"
IMPORTERS = "xaicli.importers"

OURS: Mapping[str, Mapping[str, str]] = {
    COLLECTORS: {
        "classification": "xaicli.collectors.named:classification",
        "embeddings": "xaicli.collectors.named:embeddings",
        "segmentation": "xaicli.collectors.named:segmentation",
        "boxes": "xaicli.collectors.named:boxes",
        "masks": "xaicli.collectors.named:masks",
    },
    FINDINGS: {"news": "xaicli.diagnosis.news:news", "spike": "xaicli.diagnosis.news:spikes"},
    IMPORTERS: {
        "tensorboard": "xaicli.importers.tensorboard:TensorBoardRuns",
        "wandb": "xaicli.importers.wandb:OfflineRuns",
        "trackio": "xaicli.importers.trackio:TrackioRuns",
        "csv": "xaicli.importers.csv:CsvRuns",
    },
}
"""The parts of this package, as entry points name them."""
PACKAGE = "xaicli"


@dataclass(frozen=True)
class Extension:
    """A part that a package brings.

    Attributes:
        name: What it is called on a command line.
        value: Where it lies: `module:name`.
        package: The distribution it is from.
    """

    name: str
    value: str
    package: str

    @property
    def is_ours(self) -> bool:
        """Whether it is from this package, whose faults are told as such."""
        return self.package == PACKAGE

    def load(self) -> Any:
        """The object it names.

        Raises:
            XaiError: It is another package's and cannot be loaded.
        """
        module, _, name = self.value.partition(":")
        try:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:
            if self.is_ours:
                raise
            raise XaiError(
                f"{self.name} of the package {self.package} cannot be loaded: {type(error).__name__}: {error}",
                hint=f"update {self.package}, or remove it with pip uninstall {self.package}",
            ) from error
        return found


def extensions(group: str) -> dict[str, Extension]:
    """The parts of a group by name: ours, then those of other packages in the order of their names.

    Another package's part under a name that is taken is there as `name@package`.

    Args:
        group: `COLLECTORS`, `FINDINGS` or `IMPORTERS`.
    """
    from importlib.metadata import entry_points

    found = {name: Extension(name, value, PACKAGE) for name, value in OURS[group].items()}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        package = entry.dist.name if entry.dist is not None else entry.module
        name = entry.name if entry.name not in found else f"{entry.name}@{package}"
        found[name] = Extension(name, entry.value, package)
    return found
