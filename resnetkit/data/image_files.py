"""Which files of a folder are taken for images, and what there is that is left out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnetkit.data.guard import looks_like_an_image

READ = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .npy".split()
)  # by suffix; what is inside decides how it is decoded
NOT_READ = frozenset(
    ".heic .heif .avif .jp2 .j2k .jxl .eps .pdf .psd .svg .ico .icns .wmf .emf .tga .dds .fits".split()
)

Steps = tuple[str, ...]  # of a path below the root


@dataclass
class Scan:
    """What lies below a folder. `images` in order, readable or not; `folders` one and two steps down; `others`, the
    files that are no images; `refused`, what is not looked into and why."""

    images: list[tuple[Steps, Path]] = field(default_factory=list)
    folders: set[Steps] = field(default_factory=set)
    others: list[Path] = field(default_factory=list)
    refused: list[tuple[Steps, str]] = field(default_factory=list)


def scan(root: Path) -> Scan:
    """Everything below `root`, however deep. Hidden files and folders are passed over; links to folders, and those to
    images elsewhere, are not followed."""
    found, home = Scan(), os.path.realpath(root)
    waiting: list[Steps] = [()]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(root.joinpath(*folder)))
        except OSError as error:
            found.refused.append((folder, error.strerror or str(error)))
            continue
        for entry in entries:
            steps = (*folder, entry.name)
            if is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(steps)
                if len(steps) <= 2:
                    found.folders.add(steps)
            elif entry.is_symlink() and (reason := _not_followed(entry, home)):
                found.refused.append((steps, reason))
            elif is_image(Path(entry.path)):
                found.images.append((steps, Path(entry.path)))
            else:
                found.others.append(Path(entry.path))
    for kind in (found.images, found.others, found.refused):
        kind.sort()
    return found


def images_below(root: Path) -> Iterator[Path]:
    """The images of a folder in order, then what could not be looked into, for its reader to say why."""
    found = scan(root)
    yield from (path for _, path in found.images)
    yield from (root.joinpath(*steps) for steps, _ in found.refused)


def is_hidden(name: str) -> bool:
    """Folders and files of the system and of editors; never a class or an image."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether a person would take it for an image: by its suffix, or without one by its first bytes."""
    suffix = path.suffix.lower()
    return suffix in READ or suffix in NOT_READ if suffix else begins_as_image(path)


def begins_as_image(path: Path) -> bool:
    """Whether a file, whatever it is called, has the first bytes of an image that is read."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return looks_like_an_image(file.read(12))
    except OSError:
        return False


def _not_followed(entry: os.DirEntry[str], home: str) -> str | None:
    if os.path.isdir(entry.path):
        return "a link to a folder, which is not followed"
    target = os.path.realpath(entry.path)
    outside = os.path.commonpath((home, target)) != home
    if outside and os.path.exists(target) and is_image(Path(entry.path)):
        return "a link out of the folder, which is not followed; copy the image in"
    return None
