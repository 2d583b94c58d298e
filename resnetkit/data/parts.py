"""What every source of labelled images gives: parts, their labels, the names of the classes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.data.encoded import BadImage, Encoded
from resnetkit.data.labels import are_multilabel
from resnetkit.errors import ResnetkitError

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SPLIT_WORDS = SPLITS | {"testing": "test"}  # where a class cannot be meant


@dataclass
class Part:
    """One split. `images` is uint8 (N, C, H, W), or N encoded images: paths, bytes, members of an archive. `labels` has
    the class of each, or which of the classes each has; see labels."""

    images: Tensor | Sequence[Encoded]
    labels: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Tensor) -> "Part":
        chosen = indices.tolist()
        images = self.images[indices] if isinstance(self.images, Tensor) else [self.images[i] for i in chosen]
        return Part(images, self.labels[indices], [self.names[i] for i in chosen])


@contextmanager
def named(part: Part, sample: int) -> Iterator[None]:
    """Every image was read before; raises BadImage with the name of one that no longer reads."""
    try:
        yield
    except BadImage as error:
        raise BadImage(f"{part.names[sample]} can no longer be read: {error}") from error


@dataclass
class Dataset:
    """Parts by name: train, val and test as the data has them, or `all` where it is not split. Class names in label
    order, and the images left out with the reason. `recipe` is that of a named set."""

    name: str
    classes: list[str]
    parts: dict[str, Part]
    bad: list[tuple[str, str]] = field(default_factory=list)
    recipe: str | None = None

    @property
    def multilabel(self) -> bool:
        """Whether an image may have none or several of the classes."""
        return any(are_multilabel(part.labels) for part in self.parts.values())


def parts_of(files: Iterable[Path], root: Path) -> dict[Path, str]:
    """The part that each file of a set in the folder `root` is of: that which its name begins with, or its folder below
    `root` is called, or a word of its name says. Words of names alone must divide the files; else it is `all`. Raises
    ResnetkitError where only some names say."""
    splits = {file: _begins_with(file, root) for file in files}
    said = {file: split or _says(file) for file, split in splits.items()}
    if any(splits.values()) or len({*said.values()} - {None}) > 1:
        splits = said
        for file, split in splits.items():
            if split is None:
                raise ResnetkitError(
                    f"{file}: which part is it? Its name must say one of train, val and test, as the others'"
                )
    return {file: split or "all" for file, split in splits.items()}


def _begins_with(file: Path, root: Path) -> str | None:
    words = [re.split(r"[-_.]", file.name)[0].lower(), *([] if file.parent == root else [file.parent.name.lower()])]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _says(file: Path) -> str | None:
    said = {SPLIT_WORDS[word] for word in re.split(r"[\W_]+", file.name.lower()) if word in SPLIT_WORDS}
    return said.pop() if len(said) == 1 else None


def file_names(root: Path, files: Sequence[Path]) -> dict[Path, str]:
    """What each file is called in the names of its images: its own name, or its path below `root` where others share
    that."""
    count = Counter(file.name for file in files)
    return {file: file.name if count[file.name] == 1 else file.relative_to(root).as_posix() for file in files}


def in_label_order(labels: Iterable[Any]) -> list[Any]:
    """The different labels: numbers (or texts that all are whole numbers) by size, others by letter."""
    found = set(labels)
    numbers = all(re.fullmatch(r"-?\d+", str(label)) for label in found)
    return sorted(found, key=(lambda label: (int(label), str(label))) if numbers else str)


def same_but_for_case(name: str) -> str:
    """What names share that differ by case, by Unicode form or by blanks at an end only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


def flaw(name: str) -> str | None:
    """Why a class cannot be called so, or None: its name could not be written and read again."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):  # control; bytes not UTF-8
        return "is not plain UTF-8 text"
    return None if name.strip() else "is empty"


def require_plain_names(where: Path | str, classes: Iterable[str]) -> None:
    """Raise ResnetkitError for class names that cannot be written."""
    for name in classes:
        if problem := flaw(name):
            raise ResnetkitError(f"{where}: class name {name!a} {problem}; rename it")


def numbered_where_equal(classes: Sequence[str]) -> list[str]:
    """The names that a list gives by number, those that it gives twice with their numbers: ImageNet's, as Hugging Face
    has it, has two cranes, `crane (134)` and `crane (517)`."""
    count = Counter(classes)
    numbered = [f"{name} ({i})" for i, name in enumerate(classes)]
    told = [name if count[name] == 1 else own for name, own in zip(classes, numbered)]
    return told if len(set(told)) == len(told) else numbered


def require_clear_names(where: Path | str, classes: Sequence[str]) -> None:
    """Raise ResnetkitError for class names that cannot be told apart or cannot be written."""
    require_plain_names(where, classes)
    seen: dict[str, str] = {}
    for name in classes:
        twin = seen.setdefault(same_but_for_case(name), name)
        if twin != name:
            raise ResnetkitError(
                f"{where}: classes {twin!a} and {name!a} differ by case, Unicode form or a blank at an end; merge them"
            )
