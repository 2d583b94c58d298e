"""What is wrong with a set of images, worst first, each with its cure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit.atomic import write_text
from resnetkit.data.copies import Copies
from resnetkit.data.parts import same_but_for_case
from resnetkit.data.survey import Picture, Survey
from resnetkit.tables import csv_text

TINY = 10  # training images a class
IMBALANCE = 10  # largest class by smallest
ELONGATED = 2  # longer side by shorter; the centre crop of training recipes sees less than 2/5 of such an image
TRAINING = ("train", "all")
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """`items` are all that it was found of: a path or a class, and what is the matter with it. A `grave` one makes
    every figure measured on the set doubtful."""

    kind: str
    message: str
    cure: str
    items: list[tuple[str, str]]
    grave: bool = False

    def to_dict(self) -> dict[str, Any]:
        examples = [f"{subject}: {detail}" if detail else subject for subject, detail in self.items[:EXAMPLES]]
        return {
            "kind": self.kind,
            "count": len(self.items),
            "message": self.message,
            "examples": examples,
            "cure": self.cure,
            "grave": self.grave,
        }


@dataclass(frozen=True)
class Case:
    """What the checks look at. `size` is (height, width) in pixels that the network sees, None for images that it sees
    as they are; `crop` says that a centre crop takes them there."""

    survey: Survey
    copies: Copies
    size: tuple[int, int] | None
    crop: bool

    def describe(self, index: int) -> str:
        picture = self.survey.pictures[index]
        return f"{picture.name} ({self.survey.class_of(picture)})"


def check(survey: Survey, copies: Copies, size: tuple[int, int] | None = None, crop: bool = True) -> list[Finding]:
    """The findings, worst first. `size` is (height, width) in pixels that the network will see."""
    case = Case(survey, copies, size, crop)
    return [finding for examine in CHECKS for finding in examine(case) if finding.items]


def write_tables(findings: list[Finding], copies: Copies, survey: Survey, folder: Path) -> None:
    """findings.csv with every item of every finding; duplicates.csv with every pair of copies, leaks first."""
    rows = [(finding.kind, *item) for finding in findings for item in finding.items]
    write_text(folder / "findings.csv", csv_text(("finding", "what", "detail"), rows))
    pictures = survey.pictures
    pairs = sorted(copies.pairs(), key=lambda pair: pictures[pair.first].part == pictures[pair.second].part)
    lines = [
        (
            kind,
            f"{score:.3f}",
            *(value for p in (pictures[a], pictures[b]) for value in (p.name, p.part, survey.class_of(p))),
        )
        for a, b, kind, score in pairs
    ]
    header = ("kind", "score", "path", "split", "class", "copy_path", "copy_split", "copy_class")
    write_text(folder / "duplicates.csv", csv_text(header, lines))


def _leaks(case: Case) -> Iterator[Finding]:
    """Images of val and test that an earlier part has too."""
    pictures, same = case.survey.pictures, case.copies.same
    # Pictures are in the order of their parts, so the first of equal ones lies in the earliest part.
    exact, near = [], []
    held_out = 0
    for i, picture in enumerate(pictures):
        held_out += picture.part not in TRAINING
        first = same[i]
        if pictures[first].part != picture.part:
            same_file = pictures[first].hash == picture.hash
            exact.append((picture.name, f"the same {'file' if same_file else 'pixels'} as {pictures[first].name}"))
            continue
        likes = {j: s for j, s in case.copies.neighbours.get(first, {}).items() if pictures[j].part != picture.part}
        earlier = {j: score for j, score in likes.items() if j < i}
        if earlier:
            best = max(earlier, key=lambda j: earlier[j])
            near.append((earlier[best], picture.name, pictures[best].name))
    count = len(exact) + len(near)
    message = (
        f"{count:,} of {held_out:,} held-out images ({count / max(1, held_out):.1%}) are in an earlier part too: "
        f"{len(exact):,} the same, {len(near):,} nearly"
    )
    cure = "leave their copies, which --out lists in duplicates.csv, out of training"
    if all(isinstance(picture.image, Path) for picture in pictures):
        cure = "keep copies in one part: resnet data split DATA --out split.csv, then train on split.csv"
    surest = [(name, f"{score:.0%} like {source}") for score, name, source in sorted(near, reverse=True)]
    yield Finding("leak", message, cure, exact + surest, grave=True)


def _conflicts(case: Case) -> Iterator[Finding]:
    pictures = case.survey.pictures
    words = {"file": "the same file as", "pixels": "the same pixels as", "near": "nearly"}
    items = [
        (case.describe(second), f"{words[kind]} {case.describe(first)}")
        for first, second, kind, _ in case.copies.pairs()
        if pictures[first].labels != pictures[second].labels
    ]
    message = f"{_plural(len(items), 'pair')} of one picture in two classes"
    yield Finding("class_conflict", message, "look at each and keep it in the class it shows", items, grave=True)


def _unreadable(case: Case) -> Iterator[Finding]:
    bad = case.survey.bad
    message = f"{len(bad):,} of {case.survey.total:,} images cannot be read or are of no part"
    yield Finding("unreadable", message, "training leaves them out; mend, move or remove them", bad)


def _small_classes(case: Case) -> Iterator[Finding]:
    counts = dict(zip(case.survey.dataset.classes, _training_counts(case)))
    empty = [(name, "no training image") for name, count in counts.items() if not count]
    yield Finding("empty_class", f"{_plural(len(empty), 'class')} without a training image", "add some", empty)
    tiny = [(name, _plural(count, "training image")) for name, count in counts.items() if 0 < count < TINY]
    message = f"{_plural(len(tiny), 'class')} of fewer than {TINY} training images"
    yield Finding("tiny_class", message, "add images, or merge the class with another", tiny)


def _twins(case: Case) -> Iterator[Finding]:
    names: dict[str, list[str]] = {}
    for name in case.survey.dataset.classes:
        names.setdefault(same_but_for_case(name), []).append(name)
    items = [(twins[0], f"beside {', '.join(map(ascii, twins[1:]))}") for twins in names.values() if len(twins) > 1]
    message = f"{_plural(len(items), 'class')} named twice, but for case or Unicode form"
    yield Finding("class_twins", message, "merge them", items)


def _imbalance(case: Case) -> Iterator[Finding]:
    counts = {name: n for name, n in zip(case.survey.dataset.classes, _training_counts(case)) if n}
    if not counts:
        return
    least, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    ratio = counts[most] / counts[least]
    items = [(least, f"{counts[least]:,} training images against {counts[most]:,} of {most}")] * (ratio > IMBALANCE)
    message = f"the largest class has {ratio:.0f} times the images of the smallest"
    yield Finding("imbalance", message, "weight the classes or sample them evenly; judge by balanced accuracy", items)


def _framing(case: Case) -> Iterator[Finding]:
    if case.size is None:
        return
    pictures = case.survey.pictures
    if case.crop:
        long = [p for p in pictures if max(p.portrait.aspect, 1 / p.portrait.aspect) > ELONGATED]
        message = f"{_plural(len(long), 'image')} more than {ELONGATED} times as long as wide; a centre crop loses most"
        yield Finding("elongated", message, "train with framing=letterbox", [(p.name, _side(p)) for p in long])
    small = [p for p in pictures if p.portrait.side[0] < case.size[0] or p.portrait.side[1] < case.size[1]]
    message = f"{_plural(len(small), 'image')} smaller than the network's {case.size[0]}x{case.size[1]} pixels"
    yield Finding("small", message, "train with a smaller --img-size if most are", [(p.name, _side(p)) for p in small])


def _copies_within(case: Case) -> Iterator[Finding]:
    pictures = case.survey.pictures
    items = [
        (pictures[second].name, f"{'nearly' if kind == 'near' else f'the same {kind} as'} {pictures[first].name}")
        for first, second, kind, _ in case.copies.pairs()
        if pictures[first].part == pictures[second].part
    ]
    message = f"{_plural(len(items), 'pair')} of one picture within a part"
    divided = any(picture.part in ("val", "test") for picture in pictures)  # else training will divide them
    cure = "harmless in training" + (" unless many" if divided else "; resnet data split DATA keeps them in one part")
    yield Finding("duplicates", message, cure, items)


CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _leaks,
    _conflicts,
    _unreadable,
    _small_classes,
    _twins,
    _imbalance,
    _framing,
    _copies_within,
)


def _training_counts(case: Case) -> list[int]:
    return case.survey.count("all" if "all" in case.survey.dataset.parts else "train")


def _side(picture: Picture) -> str:
    height, width = picture.portrait.side
    return f"{width}x{height} pixels"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")
