"""Images and labels listed in a file: CSV or TSV with a header, or lines of `path label`."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from resnetkit.data.label_cells import Read, flags, one_name, several_names
from resnetkit.data.labels import SEPARATOR, from_sets, require_writable
from resnetkit.data.parts import (
    SPLIT_WORDS,
    Dataset,
    Part,
    flaw,
    in_label_order,
    require_clear_names,
    same_but_for_case,
)
from resnetkit.errors import ResnetkitError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".txt")
PATHS = ("path", "file", "filename", "filepath", "image")
SEVERAL = "labels"  # a column of this name may have several classes an image
LABELS = ("label", "class", "target", SEVERAL)
SPLIT_COLUMNS = ("split", "part", "set")
SHOWN = 5  # problems that a message spells out


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    labels: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class _Rows:
    """What a file lists, and what is wrong with it by line. `classes` are those that it declares; with `multilabel` an
    image may have none or several."""

    rows: list[_Row]
    problems: list[tuple[int, str]]
    classes: list[str] | None = None
    multilabel: bool = False


@dataclass(frozen=True)
class _Columns:
    """Where the path, the labels and, if there is one, the split stand."""

    path: int
    labels: list[int]
    split: int | None


def find_list(source: str) -> tuple[Path, str | None] | None:
    """The file and the label columns that `labels.csv`, `labels.csv:COLUMN` or `labels.csv:COLUMN,COLUMN` names, where
    there is such a file."""
    if Path(source).suffix.lower() in SUFFIXES and Path(source).is_file():
        return Path(source), None
    file, _, column = source.rpartition(":")
    return (Path(file), column) if Path(file).suffix.lower() in SUFFIXES and Path(file).is_file() else None


def listed(file: Path, column: str | None = None) -> Dataset:
    """The images that `file` lists, by paths below its folder; `column` says which has the labels where several could.

    An image may have several classes where the column is called `labels` or a cell of it has a | between names, and
    where `column` names several, with a comma between, that have 0 or 1. A column `split` may say train, val or test.
    Raises ResnetkitError that names every wrong line.
    """
    text = _text(file)
    if file.suffix.lower() == ".txt":
        if column is not None:
            raise ResnetkitError(f"{file}: a list of `path label` lines has no column {column!r}")
        found = _list_rows(text)
    else:
        found = _table_rows(file, text, column)
    rows = found.rows
    problems = found.problems + _path_problems(file.parent, rows) + _label_problems(rows)
    if problems:
        told = "; ".join(f"{file}:{line}: {problem}" for line, problem in sorted(problems)[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ResnetkitError(f"{told}{more}")
    if not rows:
        raise ResnetkitError(f"{file}: lists no image")
    classes = found.classes or in_label_order(label for row in rows for label in row.labels)
    index = {label: i for i, label in enumerate(classes)}
    parts = {}
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        places = [[index[label] for label in row.labels] for row in own]
        labels = from_sets(places, len(classes)) if found.multilabel else torch.tensor(places)[:, 0]
        parts[split] = Part([file.parent / row.path for row in own], labels, [row.path for row in own])
    return Dataset(file.stem, classes, parts)


def _text(file: Path) -> str:
    data = file.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ResnetkitError(f"{file}: UTF-16; save it as CSV UTF-8")
    return data.decode("utf-8-sig", errors="surrogateescape")  # paths may hold any bytes


def _list_rows(text: str) -> _Rows:
    rows, problems = [], []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        words = line.strip().rsplit("\t" if "\t" in line else None, maxsplit=1)
        if len(words) == 2:
            rows.append(_Row(number, words[0].strip(), (words[1].strip(),), "all"))
        elif words:
            problems.append((number, f"{words[0]!r} is a path without a label"))
    return _Rows(rows, problems)


def _table_rows(file: Path, text: str, column: str | None) -> _Rows:
    header, *records = _records(file, text) or [(1, [])]
    names = [name.strip() for name in header[1]]
    at = _columns(file, names, column)
    read = _reader(names, at, records)
    rows, problems = [], []
    for line, cells in records:
        if len(cells) != len(names):
            problems.append((line, f"{len(cells)} cells where the header has {len(names)}"))
            continue
        split = "all"
        if at.split is not None:
            given = cells[at.split].strip().lower()
            split = SPLIT_WORDS.get(given, "")
            if not split:
                problems.append((line, f"split {given!r}; it must be train, val or test"))
        labels: tuple[str, ...] = ()
        try:
            labels = read([cells[i].strip() for i in at.labels])
        except ValueError as error:
            problems.append((line, str(error)))
        rows.append(_Row(line, cells[at.path].strip(), labels, split))
    classes = [names[i] for i in at.labels] if len(at.labels) > 1 else None
    return _Rows(rows, problems, classes, multilabel=read is not one_name)


def _reader(names: list[str], at: _Columns, records: list[tuple[int, list[str]]]) -> Read:
    """How label cells are read: by the columns' names and number, and whether a cell has several names."""
    if len(at.labels) > 1:
        return flags([names[i] for i in at.labels])
    (place,) = at.labels
    several = names[place].lower() == SEVERAL or any(
        SEPARATOR in cell for _, cells in records for cell in cells[place : place + 1]
    )
    return several_names if several else one_name


def _records(file: Path, text: str) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line it begins on."""

    def numbered() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(file, text), strict=True)
        begins = 1
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield begins, cells
                begins = reader.line_num + 1
        except csv.Error as error:
            raise ResnetkitError(f"{file}:{begins}: not CSV: {error}") from error

    return list(numbered())


def _delimiter(file: Path, text: str) -> str:
    first = text.lstrip().split("\n", 1)[0]
    return "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)  # semicolons: Excel in Europe


def _columns(file: Path, names: list[str], column: str | None) -> _Columns:
    lower = [name.lower() for name in names]
    has = f"columns: {', '.join(names)}"
    paths = [i for i, name in enumerate(lower) if name in PATHS]
    if len(paths) != 1:
        what = "several path columns" if paths else f"no path column; name one {', '.join(PATHS)}"
        raise ResnetkitError(f"{file}:1: {what}; {has}")
    if column is None:
        labels = [i for i, name in enumerate(lower) if name in LABELS]
        if len(labels) != 1:
            what = "several label columns" if labels else "no label column"
            others = [name for i, name in enumerate(names) if i not in paths and lower[i] not in SPLIT_COLUMNS]
            choice = names[labels[0]] if labels else (others or ["label"])[0]
            raise ResnetkitError(f"{file}:1: {what}; say which, as {file.name}:{choice}; {has}")
    else:
        labels = _named_columns(file, names, column)
    splits = [i for i, name in enumerate(lower) if name in SPLIT_COLUMNS and i not in labels]
    if len(splits) > 1:
        raise ResnetkitError(f"{file}:1: several split columns; keep one; {has}")
    return _Columns(paths[0], labels, splits[0] if splits else None)


def _named_columns(file: Path, names: list[str], column: str) -> list[int]:
    """Where the column stands, or those with a comma between."""
    wanted = [column] if column in names else [name.strip() for name in column.split(",")]
    for name in wanted:
        if names.count(name) != 1 or wanted.count(name) != 1:
            raise ResnetkitError(f"{file}:1: no single column {name!r}; {did_you_mean(name, names)}")
    if len(wanted) > 1:
        require_clear_names(file, wanted)
        require_writable(file, wanted)
    return [names.index(name) for name in wanted]


def _path_problems(folder: Path, rows: list[_Row]) -> list[tuple[int, str]]:
    seen: dict[str, int] = {}
    problems = []
    for row in rows:
        first = seen.setdefault(os.path.abspath(folder / row.path), row.line)
        if not row.path:
            problems.append((row.line, "no path"))
        elif first != row.line:
            problems.append((row.line, f"{row.path} is on line {first} already"))
        elif "\0" in row.path or not os.path.lexists(folder / row.path):
            problems.append((row.line, f"no such file {row.path!r} below {folder}"))
    return problems


def _label_problems(rows: list[_Row]) -> list[tuple[int, str]]:
    known = {label for row in rows if row.split in ("train", "all") for label in row.labels}
    first_use: dict[str, tuple[str, int]] = {}
    problems = []
    nearest = cache(partial(did_you_mean, known=known))  # of one label that many rows have
    for line, label in ((row.line, label) for row in rows for label in row.labels):
        twin, first = first_use.setdefault(same_but_for_case(label), (label, line))
        if problem := flaw(label):
            problems.append((line, f"label {label!a} {problem}"))
        elif twin != label:
            told = f"label {label!a} differs from {twin!a} on line {first} by case or Unicode form only"
            problems.append((line, told))
        elif known and label not in known:
            problems.append((line, f"label {label!r} is one that training does not know; {nearest(label)}"))
    return problems
