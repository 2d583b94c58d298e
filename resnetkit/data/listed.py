"""Images and labels listed in a file: CSV or TSV with a header, or lines of `path label`."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from resnetkit.data.parts import SPLITS, Dataset, Part, in_label_order, same_but_for_case
from resnetkit.errors import ResnetkitError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".txt")
PATHS = ("path", "file", "filename", "filepath", "image")
LABELS = ("label", "class", "target")
SPLIT_COLUMNS = ("split", "part", "set")
SHOWN = 5  # problems that a message spells out


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str


def find_list(source: str) -> tuple[Path, str | None] | None:
    """The file and the label column that `labels.csv` or `labels.csv:COLUMN` names, where there is such a file."""
    if Path(source).suffix.lower() in SUFFIXES and Path(source).is_file():
        return Path(source), None
    file, _, column = source.rpartition(":")
    return (Path(file), column) if Path(file).suffix.lower() in SUFFIXES and Path(file).is_file() else None


def listed(file: Path, column: str | None = None) -> Dataset:
    """The images that `file` lists, by paths below its folder; `column` says which has the labels where several could.

    A column `split` may say train, val or test. Raises ResnetkitError that names every wrong line.
    """
    text = _text(file)
    if file.suffix.lower() == ".txt":
        if column is not None:
            raise ResnetkitError(f"{file}: a list of `path label` lines has no column {column!r}")
        rows, problems = _list_rows(text)
    else:
        rows, problems = _table_rows(file, text, column)
    problems += _path_problems(file.parent, rows) + _label_problems(rows)
    if problems:
        told = "; ".join(f"{file}:{line}: {problem}" for line, problem in sorted(problems)[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ResnetkitError(f"{told}{more}")
    if not rows:
        raise ResnetkitError(f"{file}: lists no image")
    classes = in_label_order(row.label for row in rows)
    index = {label: i for i, label in enumerate(classes)}
    parts = {}
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        labels = torch.tensor([index[row.label] for row in own])
        parts[split] = Part([file.parent / row.path for row in own], labels, [row.path for row in own])
    return Dataset(file.stem, classes, parts)


def _text(file: Path) -> str:
    data = file.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ResnetkitError(f"{file}: UTF-16; save it as CSV UTF-8")
    return data.decode("utf-8-sig", errors="surrogateescape")  # paths may hold any bytes


def _list_rows(text: str) -> tuple[list[_Row], list[tuple[int, str]]]:
    rows, problems = [], []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        words = line.strip().rsplit("\t" if "\t" in line else None, maxsplit=1)
        if len(words) == 2:
            rows.append(_Row(number, words[0].strip(), words[1].strip(), "all"))
        elif words:
            problems.append((number, f"{words[0]!r} is a path without a label"))
    return rows, problems


def _table_rows(file: Path, text: str, column: str | None) -> tuple[list[_Row], list[tuple[int, str]]]:
    header, *records = _records(file, text) or [(1, [])]
    names = [name.strip() for name in header[1]]
    at = _columns(file, names, column)
    rows, problems = [], []
    for line, cells in records:
        if len(cells) != len(names):
            problems.append((line, f"{len(cells)} cells where the header has {len(names)}"))
            continue
        split = "all"
        if "split" in at:
            given = cells[at["split"]].strip().lower()
            split = SPLITS.get(given, "")
            if not split:
                problems.append((line, f"split {given!r}; it must be train, val or test"))
        rows.append(_Row(line, cells[at["path"]].strip(), cells[at["label"]].strip(), split))
    return rows, problems


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


def _columns(file: Path, names: list[str], column: str | None) -> dict[str, int]:
    """Where the path, the label and, if there is one, the split stand."""
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
        labels = [i for i, name in enumerate(names) if name == column]
        if len(labels) != 1:
            raise ResnetkitError(f"{file}:1: no single column {column!r}; {did_you_mean(column, names)}")
    splits = [i for i, name in enumerate(lower) if name in SPLIT_COLUMNS and i != labels[0]]
    if len(splits) > 1:
        raise ResnetkitError(f"{file}:1: several split columns; keep one; {has}")
    return {"path": paths[0], "label": labels[0]} | ({"split": splits[0]} if splits else {})


def _path_problems(folder: Path, rows: list[_Row]) -> list[tuple[int, str]]:
    seen: dict[str, int] = {}
    problems = []
    for row in rows:
        first = seen.setdefault(os.path.normpath(row.path), row.line)
        if not row.path:
            problems.append((row.line, "no path"))
        elif first != row.line:
            problems.append((row.line, f"{row.path} is on line {first} already"))
        elif "\0" in row.path or not os.path.lexists(folder / row.path):
            problems.append((row.line, f"no such file {row.path!r} below {folder}"))
    return problems


def _label_problems(rows: list[_Row]) -> list[tuple[int, str]]:
    known = {row.label for row in rows if row.split in ("train", "all")}
    first_use: dict[str, _Row] = {}
    problems = []
    for row in rows:
        twin = first_use.setdefault(same_but_for_case(row.label), row)
        if not row.label:
            problems.append((row.line, "no label"))
        elif any("\udc80" <= letter <= "\udcff" for letter in row.label):
            problems.append((row.line, f"label {row.label!a} is not UTF-8"))
        elif twin.label != row.label:
            problems.append(
                (
                    row.line,
                    f"label {row.label!a} differs from {twin.label!a} on line {twin.line} by case or Unicode form only",
                )
            )
        elif known and row.label not in known:
            problems.append(
                (row.line, f"label {row.label!r} is one that training does not know; {did_you_mean(row.label, known)}")
            )
    return problems
