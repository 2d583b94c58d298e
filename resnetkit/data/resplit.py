"""A new division of a set into train, val and test, as a table that training reads."""

import os
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnetkit.atomic import write_text
from resnetkit.data.copies import find_copies
from resnetkit.data.duplicates import connected
from resnetkit.data.labels import SEPARATOR, require_writable
from resnetkit.data.listed import find_list
from resnetkit.data.parts import Dataset
from resnetkit.data.split import by_group, by_hash
from resnetkit.data.survey import Picture, Survey
from resnetkit.errors import ResnetkitError
from resnetkit.tables import csv_text

WAYS = ("hash", "group", "random")
NO_CLASS = (-1,)  # the stratum of images of none of the classes


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """`by` hash: a function of an image's content, so that a set may grow (near copies may move, as what counts for one
    depends on the set); `group`: what the pattern `group` finds in a path (its one bracket), or the folder of the file,
    stays in one part; `random`: drawn. `seed` (0) is for the latter two.

    `val` and `test` are shares of all images. With `folds` the others are divided into so many equal parts as well.
    `keep_copies` keeps near and exact duplicates in one part.
    """

    by: str = "hash"
    val: float = 0.1
    test: float = 0.2
    group: str | None = None
    folds: int | None = None
    seed: int | None = None
    keep_copies: bool = True

    def __post_init__(self) -> None:
        problems = {
            f"by must be {', '.join(WAYS)}; got {self.by!r}": self.by not in WAYS,
            f"val and test must be shares that leave some to train on; got {self.val:g} and {self.test:g}": not (
                self.val >= 0 and self.test >= 0 and self.val + self.test < 1
            ),
            f"folds must be at least 2; got {self.folds}": self.folds is not None and self.folds < 2,
            "group goes with by group": self.group is not None and self.by != "group",
            "seed goes with by random or group": self.seed is not None and self.by == "hash",
            f"seed must be 0 or more; got {self.seed}": self.seed is not None and self.seed < 0,
        }
        for problem, present in problems.items():
            if present:
                raise ResnetkitError(f"split: {problem}")


@dataclass(frozen=True)
class Division:
    """Of each picture its part, and its fold from 1 on, None where it has none."""

    pictures: list[Picture]
    parts: list[str]
    folds: list[int | None]

    def counts(self) -> dict[str, int]:
        return {part: self.parts.count(part) for part in ("train", "val", "test")}


def divide(survey: Survey, plan: SplitPlan) -> Division:
    """Set all readable images of a set apart anew, whatever parts it had. Raises ResnetkitError where that leaves a
    class without an image to train on, too, whichever fold is held out."""
    pictures = survey.pictures
    groups = _groups(survey, plan)
    names = ("train", "val", "test")
    places = _place(pictures, groups, (1 - plan.val - plan.test, plan.val, plan.test), plan)
    parts = [names[place] for place in places]
    _require_training(survey, parts, "try another by" if plan.by == "hash" else "try another by or seed")
    folds: list[int | None] = [None] * len(pictures)
    if plan.folds:
        train = [i for i, part in enumerate(parts) if part == "train"]
        chosen = _place(
            [pictures[i] for i in train], [groups[i] for i in train], [1 / plan.folds] * plan.folds, plan, again=True
        )
        for i, fold in zip(train, chosen):
            folds[i] = fold + 1
        _require_folds(survey, folds, plan.folds)
    return Division(pictures, parts, folds)


def require_other(path: Path, source: str) -> None:
    """Raise ResnetkitError where a table at `path` would replace what `source`, as `open_dataset` takes it, is read
    from, and where its name would not say that it is a CSV."""
    table = find_list(source)
    read = table[0] if table else Path(source)
    if path.exists() and read.exists() and path.samefile(read):
        raise ResnetkitError(f"{path} is what the images are read from; choose another --out")
    if path.suffix.lower() != ".csv":
        raise ResnetkitError(f"{path}: a split is a CSV, and training tells one by its name; end --out with .csv")


def require_files(dataset: Dataset) -> None:
    """Raise ResnetkitError for images that are no files of their own, which no table can list."""
    for part in dataset.parts.values():
        if not all(isinstance(image, Path) for image in part.images):
            raise ResnetkitError(
                f"{dataset.name}: a split lists files, and its images are not files of their own; unpack archives first"
            )


def table_paths(path: Path, folds: int) -> list[Path]:
    """Where `write_division` writes the table itself, and one for each fold."""
    return [path, *(path.with_name(f"{path.stem}-fold{fold}.csv") for fold in range(1, folds + 1))]


def write_division(division: Division, survey: Survey, path: Path) -> list[Path]:
    """A CSV of path (below the folder of the CSV), label (or labels), split and, where there are folds, fold; and for
    each fold one of the training images, of which it is `val` and the others `train`. Returns their paths.

    The images must be files. Raises ResnetkitError for class names that would not be read back.
    """
    require_writable(survey.dataset.name, survey.dataset.classes)
    files = table_paths(path, max((fold or 0 for fold in division.folds), default=0))
    rows = _rows(division, survey, files)
    header = ("path", "labels" if survey.dataset.multilabel else "label", "split", "fold")
    width = 3 if len(files) == 1 else 4
    write_text(path, csv_text(header[:width], [row[:width] for row in rows]))
    for held, file in enumerate(files[1:], start=1):
        parts = [(*row[:2], "val" if row[3] == held else "train") for row in rows if row[3]]
        write_text(file, csv_text(header[:3], parts))
    return files


def _rows(division: Division, survey: Survey, files: list[Path]) -> list[tuple[str, str, str, int | str]]:
    """Path, label, split and fold of each image, for tables beside each other. Raises ResnetkitError where one of these
    would replace an image."""
    root = files[0].parent.resolve()
    rows: list[tuple[str, str, str, int | str]] = []
    for picture, part, fold in zip(division.pictures, division.parts, division.folds):
        assert isinstance(picture.image, Path), "require_files was asked before"
        for file in files:
            if file.exists() and file.samefile(picture.image):
                raise ResnetkitError(f"{file} is one of the images; choose another --out")
        place = os.path.relpath(picture.image.parent.resolve() / picture.image.name, root)
        label = SEPARATOR.join(survey.dataset.classes[label] for label in picture.labels)
        rows.append((place, label, part, "" if fold is None else fold))
    return rows


def _require_training(survey: Survey, parts: list[str], cure: str) -> None:
    counts = Counter(label for picture in survey.pictures for label in picture.labels)
    known = {label for picture, part in zip(survey.pictures, parts) if part == "train" for label in picture.labels}
    for label, count in counts.items():
        if label not in known:
            name, images = survey.dataset.classes[label], "1 image" if count == 1 else f"{count} images"
            none = f"split: class {name!r} has {images}, and none would be left to train on"
            raise ResnetkitError(f"{none}; add some, lower val and test, or {cure}")


def _require_folds(survey: Survey, folds: list[int | None], count: int) -> None:
    for held in range(1, count + 1):
        if held not in folds:
            raise ResnetkitError(f"split: no training image is in fold {held} of {count}; ask for fewer folds")
        others = ["train" if fold not in (held, None) else "val" for fold in folds]
        _require_training(survey, others, f"ask for other folds than {count}")


def _place(
    pictures: list[Picture], groups: list[int], shares: Sequence[float], plan: SplitPlan, *, again: bool = False
) -> list[int]:
    """Of each picture the index of its share; `again` of pictures that were chosen by their hashes already."""
    if plan.by != "hash":
        return by_group(groups, [picture.labels or NO_CLASS for picture in pictures], shares, plan.seed or 0)
    # A part was chosen by the first digits of the hash, so those of one part are alike; the last are not.
    hashes = [picture.hash[::-1] if again else picture.hash for picture in pictures]
    # From the last share on, so that test stays when val changes.
    return [len(shares) - 1 - place for place in by_hash(hashes, groups, shares[::-1])]


def _groups(survey: Survey, plan: SplitPlan) -> list[int]:
    """Of each picture the first of those that it must not be parted from."""
    pictures = survey.pictures
    links: list[tuple[int, int]] = []
    if plan.by == "group":
        links += _linked(_folders(survey) if plan.group is None else _found(pictures, plan.group))
    if plan.keep_copies:
        links += enumerate(find_copies(pictures).together)
    return connected(len(pictures), links)


def _linked(keys: Sequence[Hashable]) -> list[tuple[int, int]]:
    first: dict[Hashable, int] = {}
    return [(first.setdefault(key, i), i) for i, key in enumerate(keys)]


def _found(pictures: list[Picture], pattern: str) -> list[str]:
    """What the pattern's bracket finds in each path."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ResnetkitError(f"split: group {pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise ResnetkitError(f"split: group {pattern!r} needs one bracket around what names the group: '(patient\\d+)'")
    keys = []
    for picture in pictures:
        found = compiled.search(picture.name)
        if found is None or found[1] is None:
            raise ResnetkitError(
                f"split: group {pattern!r} finds nothing in {picture.name}; every path must have a group"
            )
        keys.append(found[1])
    return keys


def _folders(survey: Survey) -> list[str]:
    places = [Path(picture.name).parent for picture in survey.pictures]
    if all(place.name == survey.class_of(p) for place, p in zip(places, survey.pictures)):
        raise ResnetkitError("split: the folders are the classes; say with --group what in a path names the group")
    return [str(place) for place in places]
