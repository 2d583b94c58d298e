"""One encoded image, wherever it lies: a file, bytes in memory, a place inside an archive."""

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resnetkit.errors import ResnetkitError

MAX_FILE = 2**29  # bytes; more than the uncompressed 16-bit pixels of the largest image that is decoded
MAX_RATIO = 200  # a member that unpacks to more than this is no image; only flat pixels stored raw come near


class BadImage(ResnetkitError):
    """An image that cannot be read; the message is the reason."""


@dataclass(frozen=True, slots=True)  # slots: a large set has millions
class Member:
    """An image inside an archive: `packed` bytes at `offset`, deflated or as they are, that are `size` bytes unpacked.

    Nothing is kept open, so that the workers of a loader can each read for themselves.
    """

    archive: Path
    offset: int
    packed: int
    size: int
    deflated: bool = False
    checksum: int | None = None  # CRC-32

    def read(self) -> bytes:
        """Raises BadImage for a member that is too large or damaged, OSError when the archive cannot be read."""
        if self.size > MAX_FILE:
            raise BadImage(f"{self.size >> 20:,} MiB; {MAX_FILE >> 20} are the most that is read")
        if self.deflated and self.size > 2**20 and self.size > MAX_RATIO * self.packed:
            raise BadImage(f"unpacks to more than {MAX_RATIO} times its size, as no image does")
        with open(self.archive, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.packed)
        if self.deflated:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            except zlib.error as error:
                raise BadImage("damaged in the archive") from error
        if len(data) != self.size or (self.checksum is not None and zlib.crc32(data) != self.checksum):
            raise BadImage("damaged in the archive")
        return data


Encoded = Path | bytes | Member


@contextmanager
def undamaged(archive: Path) -> Iterator[None]:
    """Raises ResnetkitError where reading a zip or tar raises anything: their decompressors have many kinds. What the
    system refuses is not of the archive, and is left."""
    try:
        yield
    except (ResnetkitError, MemoryError, AssertionError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.EIO):
            raise
        reason = str(error) or type(error).__name__
        raise ResnetkitError(f"{archive}: a damaged archive ({reason}); make or download it again") from error


def size(image: Encoded) -> int:
    """In bytes, 0 for what is not there."""
    if isinstance(image, Path):
        try:
            return image.stat().st_size
        except OSError:
            return 0
    return len(image) if isinstance(image, bytes) else image.packed


def read(image: Encoded) -> bytes:
    """The bytes of an image. Raises BadImage for what is no readable file of a sane size; never waits on a pipe."""
    if isinstance(image, bytes):
        return image
    try:
        return image.read() if isinstance(image, Member) else _read_file(image)
    except OSError as error:
        raise BadImage(_REASONS.get(error.errno or 0, error.strerror or str(error))) from error


_REASONS = {errno.ELOOP: "a link that leads to itself"}


def _read_file(path: Path) -> bytes:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise BadImage("a link that leads nowhere" if path.is_symlink() else "no such file") from None
    if stat.S_ISDIR(found.st_mode):
        raise BadImage("a folder" if os.access(path, os.R_OK | os.X_OK) else "a folder that may not be opened")
    if not stat.S_ISREG(found.st_mode):
        raise BadImage("a pipe, socket or device, not a file")
    if found.st_size > MAX_FILE:
        raise BadImage(f"{found.st_size >> 20:,} MiB; {MAX_FILE >> 20} are the most that is read")
    return path.read_bytes()
