"""Files that are either wholly there or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path

from resnetkit.errors import ResourceExhausted


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, flush it to the disk, then put it in place.

    Raises ResourceExhausted when the disk refuses; the file that was there is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        cure = "; free some space and resume" if error.errno in (ENOSPC, EDQUOT) else ""
        raise ResourceExhausted(f"{path}: not saved: {error.strerror or error}{cure}") from error


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="surrogateescape"))
