"""Rows as CSV. Names that are not valid UTF-8 keep their bytes."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

CRLF = "\r\n"


class _Lines(list[str]):
    """What a writer of CSV writes, a row at a time."""

    def write(self, row: str) -> None:
        self.append(f"{row.removesuffix(CRLF)}\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = _Lines()
    # Of a terminator the signs are quoted within a field, and a reader takes either for the end of a row.
    writer = csv.writer(lines, lineterminator=CRLF)
    writer.writerow(header)
    writer.writerows(rows)
    return "".join(lines)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
