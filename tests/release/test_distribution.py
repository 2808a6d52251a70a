"""The wheel and the sdist hold what they should, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import xaicli

pytest.importorskip("hatchling", reason="hatchling is not installed")

ROOT = Path(__file__).parents[2]
NAME = f"xaicli-{xaicli.__version__}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl")


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_its_data_and_the_notices(wheel: zipfile.ZipFile) -> None:
    about = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    notices = {f"{NAME}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")}
    data = {"xaicli/sample_data/digits.parquet", "xaicli/sample_data/README.md"}
    manual = {f"{NAME}.data/data/share/man/man1/xai.1"}
    assert set(wheel.namelist()) == files_below(ROOT / "xaicli") | about | notices | data | manual


def test_the_wheel_holds_what_is_no_code(wheel: zipfile.ZipFile) -> None:
    pages = {f"xaicli/render/page.{kind}" for kind in ("css", "js")}
    assert {"xaicli/py.typed", *pages} <= set(wheel.namelist())


def test_the_metadata_names_version_licence_and_command(wheel: zipfile.ZipFile) -> None:
    metadata = message_from_string(wheel.read(f"{NAME}.dist-info/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("xaicli", xaicli.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert "xai = xaicli.__main__:entry" in wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()


def test_the_sdist_holds_what_the_tests_and_documents_need(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        held = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    needed = {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "constraints.txt"}
    assert needed | {"pyproject.toml", "docs/xai.1", "sample_data/run/xai.json", "tests/__init__.py"} <= held
    assert files_below(ROOT / "xaicli") <= held
    assert not [name for name in held if name.startswith((".", "runs", "build")) and name != ".gitignore"]
