"""The one way in which files and folders get their names: written beside, then renamed, so that they are whole.

What is recorded or saved is durable: synced before it has its name, and the name too. What can be made again (caches,
reports, exports) is whole, and not synced.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import IO, Any

from xaicli.errors import UnwrittenError, UsageError
from xaicli.progress import doing

_NO_SUCH_CALL = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""What file systems answer that sync no files: some that are mounted over a network."""
TEMPORARY = ".tmp-"
"""How the name of what is unfinished begins; the number of the process that writes it follows."""


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""How an address begins, also once a path has been made of it, which leaves one of its two slashes."""


def local(place: str | os.PathLike[str]) -> Path:
    """The path of what is to be written here.

    Raises:
        UsageError: It is an address of an object store, which would become a folder named `s3:`.
    """
    text = os.fspath(place)
    if address := _ADDRESS.match(text):
        # A path has lost slashes of it.
        slashes = "//" if address[0].lower() == "file:/" else "/"
        raise UsageError(
            f"{address[0]}{slashes}{text[address.end() :].lstrip('/')} is an address, "
            "and this is written to this machine's disk",
            hint="name a folder here and copy it there; xai sync does that with runs",
        )
    return Path(place)


_READ: ContextVar[set[Path] | None] = ContextVar("read", default=None)
"""What the running command reads, and must not replace; None outside of one."""


@contextmanager
def sparing(files: Iterable[Path]) -> Iterator[None]:
    """Within the block no file is replaced that it reads: neither these nor those that `taken` is told of."""
    before = _READ.set({file.resolve() for file in files})
    try:
        yield
    finally:
        _READ.reset(before)


def taken(path: Path) -> Path:
    """A file of the user's that is read, so that what reads it does not replace it."""
    if (read := _READ.get()) is not None:
        read.add(path.resolve())
    return path


def spare(paths: Iterable[Path], option: str = "-o") -> None:
    """Refuse to replace what the running command reads. `appearing` does so of each file; this of several, before any.

    Args:
        paths: Where files are to be written.
        option: What says where.

    Raises:
        UsageError: One of them is read, which a link to it is, too.
    """
    read = _READ.get()
    for path in paths if read else ():
        if path.resolve() in (read or ()) and path.is_file():
            raise UsageError(
                f"{path} is read by the same command, and would be replaced",
                hint=f"{option} FILE: name another file" + (", or another folder" if option == "-o" else ""),
            )


def reached(point: str) -> None:
    """A named point on the way of a file to the disk. Does nothing; a test puts a kill or a fault in its place."""
    del point


@contextmanager
def appearing(path: Path, *, durable: bool = False, made_in: Path | None = None) -> Iterator[IO[bytes]]:
    """A file open for writing that has its name once the block has ended well.

    A link in its place is replaced, never followed. What is no file, a pipe or a device, is written to as it is.

    Args:
        path: The file; its folder is made where there is none.
        durable: Survive power loss when the block has ended.
        made_in: A folder of the same disk where it lies until then; its own when None. Some tools take every file of a
            folder for one of theirs, whatever its name.

    Raises:
        OSError: It cannot be written, and names `path`; what was there before is whole.
        UsageError: The running command reads what is there.
    """
    if is_stream(path):
        with path.open("wb") as stream, _naming(path, path):
            yield stream
            stream.flush()
        return
    spare([path])
    make_folder(path.parent, durable=durable)
    temporary = temporary_beside(path if made_in is None else made_in / path.name)
    try:
        with _naming(path, temporary):
            with temporary.open("xb") as file:
                reached("opened")
                yield file
                file.flush()
                reached("written")
                if durable:
                    _sync(file.fileno())
                    reached("synced")
            temporary.replace(path)
            reached("renamed")
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)
        reached("folder synced")


@contextmanager
def _naming(path: Path, opened: Path) -> Iterator[None]:
    """Errors about an open file that name it: a full disk names none, and nobody knows this one by another name."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, str(opened)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def is_stream(path: Path) -> bool:
    """Whether a path leads to what is no file and no folder: a device, a pipe, this process's own output."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError):
        return False
    of_process = Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd")
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) or (stat.S_ISREG(kind) and path.parent in of_process)


class _Opened(io.FileIO):
    """A file to read that is closed with the last who reads it: libraries hold one as long as they need it."""

    def __del__(self) -> None:
        self.close()


def for_arrow(path: Path) -> Any:
    """What Arrow and polars open: the path, or the open file where its name is no UTF-8, which they cannot say."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return _Opened(path)
    return path


def write_whole(path: Path, content: bytes | memoryview, *, durable: bool = False, made_in: Path | None = None) -> Path:
    """Write a file as `appearing` does.

    Args:
        path: The file.
        content: All it is to hold.
        durable: Survive power loss when this returns.
        made_in: As of `appearing`.

    Returns:
        `path`.

    Raises:
        OSError: It cannot be written; what was there before is whole.
    """
    with appearing(path, durable=durable, made_in=made_in) as file:
        write_all(file.fileno(), content)
    return path


_CHECK = re.compile(r',\s*"check":\s*"([0-9a-f]{8})"\s*\}\s*\Z')
"""The last key of a JSON object that says the CRC-32 of all before it."""
SET_ASIDE = ".damaged"
"""What the names of damaged files end in that were kept beside those in their place."""


def with_check(text: str) -> str:
    """The text of a JSON object with its checksum as the last key; see `facts_in`.

    Args:
        text: An object with one key or more.
    """
    body = text.rstrip().removesuffix("}").rstrip()
    return f'{body}, "check": "{zlib.crc32(body.encode()):08x}"}}'


def facts_in(text: str) -> dict[str, Any]:
    """What a JSON object says, without its checksum; one without any, of an older version, is taken as it is.

    Raises:
        ValueError: It is empty, no JSON object, or not what was written.
    """
    if not text.strip():
        raise ValueError("it is empty")
    facts = json.loads(text)
    if not isinstance(facts, dict):
        raise ValueError("it is no JSON object")
    if isinstance(facts.get("check"), str):  # in a list of columns it may be one of them
        match = _CHECK.search(text)
        if match is None or int(match[1], 16) != zlib.crc32(text[: match.start()].encode()):
            raise ValueError("its checksum does not fit")
        del facts["check"]
    return facts


def set_aside(path: Path) -> Path:
    """Keep what a damaged file holds under another name, since another is written in its place.

    Raises:
        OSError: It cannot be kept.
    """
    for number in count(1):
        kept = path.with_name(path.name + SET_ASIDE + (f"-{number}" if number > 1 else ""))
        if not kept.exists():
            break
    shutil.copyfile(path, kept)
    sync_file(kept)
    sync_folder(kept.parent)
    return kept


class _Remembering:
    """A file that remembers what the disk said when it refused."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise


def have_written(file: IO[bytes], write: Callable[[Any], object]) -> None:
    """Have a library write a file, with the disk's own words where it refuses: torch has others, which name no reason.

    Args:
        file: An open file.
        write: Takes something with `write` and `flush`.

    Raises:
        OSError: The disk refuses.
    """
    remembering = _Remembering(file)
    try:
        write(remembering)
    except Exception as error:
        if remembering.error is not None and remembering.error is not error:
            raise remembering.error from error
        raise


class Written:
    """Files that are made one by one: what goes wrong with one of them does not stop the others.

    Attributes:
        paths: Those that were written.
    """

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self._failed: list[str] = []

    def add(self, path: Path, write: Callable[[Path], object]) -> None:
        """Have a file written, and take note of whether it was."""
        doing("writing files", len(self.paths) + len(self._failed) + 1)
        with self.noted(path):
            write(path)
            self.paths.append(path)

    def extend(self, others: Written) -> None:
        """Take those of another list behind these."""
        self.paths += others.paths
        self._failed += others._failed

    @contextmanager
    def noted(self, path: Path) -> Iterator[None]:
        """Take note of what cannot be written in the block: `path`, unless the error names another."""
        try:
            yield
        except OSError as error:
            self._failed.append(f"{error.filename or path} cannot be written: {error.strerror or error}")
        except UnwrittenError as error:
            self.paths += error.written
            self._failed.append(error.message)

    def check(self, hint: str) -> None:
        """Go on only if everything was written.

        Args:
            hint: What to try if not.

        Raises:
            UnwrittenError: Something was not; it names each file, and holds the paths of the others.
        """
        if self._failed:
            raise UnwrittenError("; ".join(dict.fromkeys(self._failed)), hint=hint, written=tuple(self.paths))


def claim_name(path: Path, content: bytes = b"") -> bool:
    """Make a file that no other process has made; False where one was first.

    Its name is the claim and comes before its content: this needs no hard links, which some file systems lack. Whoever
    needs it to survive power loss syncs it and its folder.

    Raises:
        OSError: It cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    except FileExistsError:
        return False
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)
    return True


def write_folder(parent: Path, fill: Callable[[Path], object], name: Callable[[], str]) -> Path:
    """Fill a folder that gets its name once it is full; durable, as are the files in it.

    Args:
        parent: The folder it is made in.
        fill: Writes its files into the folder it is given.
        name: Its name, asked for when it is full, and again where another process took that name meanwhile.

    Returns:
        The folder under its name.

    Raises:
        OSError: It cannot be written; nothing has appeared.
    """
    with _temporary_folder(parent) as temporary:
        fill(temporary)
        for file in temporary.iterdir():
            sync_file(file)
        sync_folder(temporary)
        while True:
            final = parent / name()
            try:
                os.rename(temporary, final)  # noqa: PTH104 - refuses a folder that holds something
                break
            except OSError:
                if not final.exists():
                    raise
    sync_folder(parent)
    return final


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a process killed meanwhile leaves no half of it under its name.

    Raises:
        OSError: It cannot be removed; it is whole.
    """
    with _temporary_folder(folder.parent) as temporary:
        folder.rename(temporary / "removed")


def give_name(temporary: Path, path: Path) -> None:
    """Give what was unfinished its name, which no other process wants at once; its name is not synced.

    Raises:
        FileExistsError: The name is taken.
        OSError: It cannot be renamed.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temporary.rename(path)


def give_second_name(path: Path, second: Path) -> None:
    """Give a file a second name, in place of the file that had it; a copy where the disk has no links.

    Raises:
        OSError: It cannot be done; what had the name before is whole.
    """
    temporary = temporary_beside(second)
    try:
        try:
            temporary.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, temporary)
            sync_file(temporary)
        temporary.replace(second)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(second.parent)


def move(path: Path, target: Path) -> None:
    """Give a file another name on the same disk, in a folder that is made where there is none.

    Raises:
        OSError: It cannot be moved, and is where it was.
    """
    make_folder(target.parent, durable=True)
    path.rename(target)
    sync_folder(target.parent)
    sync_folder(path.parent)


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder and its missing parents, each durable in its parent unless that is not asked for.

    Raises:
        OSError: It cannot be made; something else may be in its place.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not durable:
        folder.mkdir(parents=True, exist_ok=True)
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write every byte, whatever the size of the single writes."""
    view = memoryview(content).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk; a file system that cannot sync folders is left as it is.

    Raises:
        OSError: The disk fails.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that are gone left unfinished in a folder."""
    for entry in folder.glob(f"{TEMPORARY}*"):
        owner = entry.name.removeprefix(TEMPORARY).split("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name for what is unfinished, in the folder of what it will be."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}")


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """An empty folder; removed if it is still there at the end."""
    make_folder(parent, durable=False)
    folder = temporary_beside(parent / TEMPORARY)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Have a file's bytes on the disk, where its file system can do that."""
    with path.open("rb") as file:
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    """Have an open file's bytes on the disk; a file system that has no such call is left as it is.

    Raises:
        OSError: The disk fails.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
