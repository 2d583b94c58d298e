"""Files that are either wholly there or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from resnetkit.errors import ResnetkitError, refused


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, flush it to the disk, then put it in place.

    Raises ResourceExhausted where the disk gives out, ResnetkitError where it refuses; the file that was there is
    untouched.
    """
    beginning = os.fsencode(path.name)[:240].decode(errors="ignore")  # a name has 255 bytes at most
    partial = path.with_name(f".{beginning}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise refused(f"{path}: not saved", error, full="free some space and resume") from error


def create_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a new file or folder in a hidden folder beside `path`, then put it in place.

    Nothing is left when `write` raises. Raises ResnetkitError where `path` exists or the disk refuses,
    ResourceExhausted where that gives out.
    """
    if os.path.lexists(path):
        raise ResnetkitError(f"{path} is there already and would be overwritten; choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as hidden:
            partial = Path(hidden) / path.name
            write(partial)
            for file in [partial, *partial.rglob("*")]:
                _flush(file)
            os.rename(partial, path)
        _flush(path.parent)
    except OSError as error:
        raise refused(f"{path}: not saved", error) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="surrogateescape"))


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that has no end, as a crash or a full disk leaves it; the next would be lost behind it."""
    if path.exists():
        lines = path.read_bytes()
        if not lines.endswith(b"\n"):
            os.truncate(path, lines.rfind(b"\n") + 1)
