"""Zip and tar archives of class folders, and WebDataset's tar shards, read in place: nothing is written to the disk.

Shards: https://github.com/webdataset/webdataset, files of one sample share their name up to the first dot, and
`.cls` holds its label.
"""

import re
import stat
import tarfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch

from resnetkit.data.encoded import Encoded, Member, read, undamaged
from resnetkit.data.folders import class_folders
from resnetkit.data.image_files import NOT_READ, READ, Steps, is_hidden
from resnetkit.data.parts import SPLITS, Dataset, Part, file_names, in_label_order, parts_of, require_clear_names
from resnetkit.errors import ResnetkitError

MAX_UNPACKED = 2**30  # bytes of a compressed tar, which is held in memory
LABEL = ".cls"


@dataclass
class _Listing:
    files: dict[Steps, Encoded] = field(default_factory=dict)
    folders: set[Steps] = field(default_factory=set)
    refused: list[tuple[Steps, str]] = field(default_factory=list)

    @property
    def images(self) -> dict[Steps, Encoded]:
        return {steps: file for steps, file in self.files.items() if _suffix(steps) in READ | NOT_READ}


def archive(path: Path) -> Dataset | None:
    """The class folders or the shard in a zip or tar, or None when it is neither. Raises ResnetkitError for a damaged
    archive and for one whose names lead out of it."""
    listing = _list(path)
    if listing is None:
        return None
    found = listing.images
    keys = {_key(steps) for steps in found}
    if any(_suffix(steps) == LABEL and _key(steps) in keys for steps in listing.files):
        return _shards(path.stem, path.parent, {path: listing})
    top = _common_folder(found, listing.folders)
    above = len(top)
    images = sorted(((_below(top, steps), file) for steps, file in found.items()), key=lambda image: image[0])
    folders = {steps[above:] for steps in listing.folders if len(steps) > above}
    folders |= {steps[:depth] for steps, _ in images for depth in (1, 2) if len(steps) > depth}
    refused = [(_below(top, steps), reason) for steps, reason in listing.refused]
    return class_folders(path, path.name.split(".")[0], images, folders, refused)


def shards(name: str, root: Path, files: list[Path]) -> Dataset:
    """Tar shards in the folder `root`. Their names and folders say the part, see `parts_of`."""
    listings = {}
    for file in files:
        listing = _list(file)
        if listing is None:
            raise ResnetkitError(f"{file}: not a tar archive")
        listings[file] = listing
    return _shards(name, root, listings)


def _shards(name: str, root: Path, listings: dict[Path, _Listing]) -> Dataset:
    called = file_names(root, list(listings))
    part_of = parts_of(listings, root)
    rows: dict[str, list[tuple[str, Encoded, str]]] = {}
    bad: list[tuple[str, str]] = []
    for file, listing in listings.items():
        labels = _labels(file, listing)
        for key, images in _samples(listing).items():
            chosen = _image_of(file, images)
            if key not in labels:
                raise ResnetkitError(f"{file}: {'/'.join(chosen)} has no label; its {LABEL} file is missing")
            for steps in images:
                inside = f"{called[file]}/{'/'.join(steps)}"
                if steps == chosen:
                    rows.setdefault(part_of[file], []).append((inside, listing.files[steps], labels[key]))
                else:
                    bad.append((inside, f"belongs to the sample of {chosen[-1]}"))
    if not rows:
        raise ResnetkitError(f"{name}: no images in {', '.join(file.name for file in listings)}")
    training = rows.get("train") or [row for own in rows.values() for row in own]
    classes = in_label_order(label for _, _, label in training)
    require_clear_names(name, classes)
    index = {label: i for i, label in enumerate(classes)}
    for member, _, label in (row for own in rows.values() for row in own):
        if label not in index:
            raise ResnetkitError(f"{member}: label {label!r} is one that training does not know")
    parts = {
        split: Part([i for _, i, _ in own], torch.tensor([index[label] for *_, label in own]), [n for n, _, _ in own])
        for split, own in rows.items()
    }
    return Dataset(name, classes, parts, bad)


def _samples(listing: _Listing) -> dict[Steps, list[Steps]]:
    """The images of each sample, by its key."""
    found: dict[Steps, list[Steps]] = {}
    for steps in listing.images:
        found.setdefault(_key(steps), []).append(steps)
    return found


def _image_of(file: Path, images: list[Steps]) -> Steps:
    """Of a sample's images the one to learn from: the only one, or the only one without a word between its key and its
    suffix, as a mask `0.seg.png` has."""
    plain = images if len(images) == 1 else [steps for steps in images if steps[-1].count(".") == 1]
    if len(plain) != 1:
        several = ", ".join("/".join(steps) for steps in images)
        cure = "pack it again with one image a sample, called KEY.jpg or the like"
        raise ResnetkitError(f"{file}: one sample has several images, {several}; {cure}")
    return plain[0]


def _labels(file: Path, listing: _Listing) -> dict[Steps, str]:
    """The label of each sample, by its key."""
    places: dict[Steps, Steps] = {}
    for steps in listing.files:
        if _suffix(steps) == LABEL and (first := places.setdefault(_key(steps), steps)) != steps:
            one, other = ("/".join(each) for each in (first, steps))
            raise ResnetkitError(f"{file}: {one} and {other} are one sample, up to the first dot; rename the files")
    return {key: _label(file, steps, listing.files[steps]) for key, steps in places.items()}


def _label(file: Path, steps: Steps, data: Encoded) -> str:
    try:
        label = read(data).decode().strip()
    except (ResnetkitError, UnicodeDecodeError) as error:
        raise ResnetkitError(f"{file}: {'/'.join(steps)}: {error}") from error
    if not label:
        raise ResnetkitError(f"{file}: {'/'.join(steps)} is empty; it must hold the label")
    return label


def _key(steps: Steps) -> Steps:
    return (*steps[:-1], steps[-1].split(".")[0])


def _suffix(steps: Steps) -> str:
    return PurePosixPath(steps[-1]).suffix.lower()


def _common_folder(images: Collection[Steps], folders: Collection[Steps]) -> Steps:
    """The folder that holds all of them, as an archive of a folder has, but for images beside it, or beside two or more
    class folders in it; a split is not such a folder."""
    top: Steps = ()
    while True:
        depth = len(top)
        below = {steps for steps in images if steps[:depth] == top and len(steps) > depth + 1}
        tops = {steps[depth] for steps in below} | {steps[depth] for steps in folders if len(steps) > depth}
        holding = {steps[depth + 1] for steps in below if len(steps) > depth + 2}
        deep = all(len(steps) > depth + 2 for steps in below) or len(holding) > 1
        if len(tops) != 1 or not holding or not deep or {name.lower() for name in tops} & SPLITS.keys():
            return top
        top += tuple(tops)


def _below(top: Steps, steps: Steps) -> Steps:
    """The steps from a folder on, where it holds what they lead to."""
    return steps[len(top) :] if steps[: len(top)] == top else steps


def _list(path: Path) -> _Listing | None:
    with undamaged(path):
        if zipfile.is_zipfile(path):
            return _list_zip(path)
        return _list_tar(path) if tarfile.is_tarfile(path) else None


def _steps(path: Path, name: str) -> Steps | None:
    """The steps of a member's name, None for what is hidden. Raises ResnetkitError for a name that leads out."""
    name = name.replace("\\", "/")
    steps = tuple(step for step in name.split("/") if step not in ("", "."))
    if name.startswith("/") or ".." in steps or re.match("[A-Za-z]:", name):
        raise ResnetkitError(f"{path}: holds {name!r}, a path that leads out of the archive; it is not read")
    return None if not steps or any(map(is_hidden, steps)) else steps


def _add(path: Path, listing: _Listing, steps: Steps, file: Encoded) -> None:
    if steps in listing.files:
        raise ResnetkitError(f"{path}: holds {'/'.join(steps)} twice")
    listing.files[steps] = file


def _list_zip(path: Path) -> _Listing:
    listing = _Listing()
    with zipfile.ZipFile(path) as packed, open(path, "rb") as raw:
        for info in packed.infolist():
            steps = _steps(path, info.filename)
            if steps is None:
                continue
            if info.is_dir():
                listing.folders.add(steps)
            elif stat.S_ISLNK(info.external_attr >> 16):
                listing.refused.append((steps, "a link inside the archive"))
            elif info.flag_bits & 1:
                raise ResnetkitError(f"{path}: encrypted; unpack it with its password and name the folder")
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ResnetkitError(f"{path}: packed by a method other than deflate; unpack it and name the folder")
            else:
                # The name and the extra field in front of the data have their own lengths there.
                raw.seek(info.header_offset)
                header = raw.read(30)
                offset = info.header_offset + 30 + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
                deflated = info.compress_type == zipfile.ZIP_DEFLATED
                _add(path, listing, steps, Member(path, offset, info.compress_size, info.file_size, deflated, info.CRC))
    return listing


def _list_tar(path: Path) -> _Listing:
    listing, held = _Listing(), 0
    in_place = _uncompressed(path)
    with tarfile.open(path) as packed:
        for info in packed:
            steps = _steps(path, info.name)
            if steps is None:
                continue
            if info.isdir():
                listing.folders.add(steps)
            elif not info.isreg() or info.issparse():
                listing.refused.append((steps, "a link or device inside the archive"))
            elif in_place:
                _add(path, listing, steps, Member(path, info.offset_data, info.size, info.size))
            elif _suffix(steps) in READ | NOT_READ | {LABEL}:
                held += info.size
                if held > MAX_UNPACKED:
                    raise ResnetkitError(f"{path}: over {MAX_UNPACKED >> 20} MiB compressed; unpack it first")
                file = packed.extractfile(info)
                assert file, "a regular member has contents"
                _add(path, listing, steps, file.read())
    return listing


def _uncompressed(path: Path) -> bool:
    """Whether a member of the tar can be read without those before it."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False
