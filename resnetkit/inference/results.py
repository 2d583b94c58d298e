"""Answers to many images: as text on the way, and as a file that is there when every image is answered."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

from resnetkit.atomic import write_atomically, write_text
from resnetkit.errors import ResnetkitError
from resnetkit.inference.predictor import Predictor
from resnetkit.tables import csv_text

FORMATS = ("table", "jsonl", "csv", "parquet")
COLUMNS = ("path", "label", "probability", "top", "set", "labels", "error")
LISTS = ("top", "set", "labels")
NONE = "none of these"


def find_format(name: str | None, out: Path | None) -> str:
    """The format asked for, else that of the file's ending, else a table. Raises ResnetkitError."""
    if name is None and out is not None:
        name = out.suffix.removeprefix(".")
        if name not in FORMATS:
            raise ResnetkitError(f"{out}: which format? End its name in .csv, .jsonl or .parquet, or give --format")
    name = name or "table"
    if name not in FORMATS:
        raise ResnetkitError(f"format {name!r} is not known; it must be one of {', '.join(FORMATS)}")
    if name == "parquet" and out is None:
        raise ResnetkitError("Parquet cannot be printed; name a file with --out")
    return name


def line(answer: dict[str, Any], format: str) -> str:
    """One answer as a line of text."""
    if format == "jsonl":
        return json.dumps(answer)
    if format == "csv":
        return csv_text(_row(answer), ()).rstrip("\n")
    if "error" in answer:
        return f"{answer['path']}: not readable: {answer['error']}"
    if "labels" in answer:
        ranked = ", ".join(f"{name} {probability:.1%}" for name, probability in answer["top"])
        return f"{answer['path']}: {', '.join(answer['labels']) or NONE} ({ranked})"
    label, others = answer["label"] or NONE, answer["top"][1:] if answer["label"] else answer["top"]
    if "set" in answer:
        rest = f"one of {', '.join(answer['set'])}" if answer["set"] else "no class fits"
    else:
        rest = ", ".join(f"{name} {probability:.1%}" for name, probability in others)
    sure = f" {answer['probability']:.1%}" if answer["label"] else ""
    return f"{answer['path']}: {label}{sure}" + (f" ({rest})" if rest else "")


def header(format: str) -> str | None:
    return ",".join(COLUMNS) if format == "csv" else None


def answer_to_file(predictor: Predictor, paths: Sequence[Path], out: Path, format: str) -> Iterator[dict[str, Any]]:
    """Every answer, in order; after the last, `out` has them all, unreadable images too.

    Until then a hidden file beside it keeps each answer as it comes. Interrupted and called again, this goes on after
    them: no image is lost, and none asked twice but those that were not readable or are other files now. Raises
    ResnetkitError when `out` is there already, or was begun with another model, preprocessing, precision, top or
    thresholds.
    """
    if out.exists():
        raise ResnetkitError(f"{out} is there already and would be overwritten; choose another --out")
    journal = out.with_name(f".{out.name}.answers")
    origin = _origin(predictor)
    done = _answered(journal, origin)
    files: dict[str, list[Any] | None] = {}  # as they are before they are read

    def remaining() -> Iterator[Path]:
        for path in paths:
            if str(path) not in done:
                files[str(path)] = _file(path)
                yield path

    fresh = predictor.predict(remaining())
    answers = []
    with _reopen(journal, origin, done) as file:
        for path in paths:
            if str(path) in done:
                answer = done[str(path)]["answer"]
            else:
                answer = next(fresh)
                file.write(json.dumps({"answer": answer, "file": files.pop(str(path))}) + "\n")
                file.flush()
            answers.append(answer)
            yield answer
    _write(out, format, answers)
    journal.unlink()


def _origin(predictor: Predictor) -> dict[str, Any]:
    """What the answers depend on besides the images."""
    model = predictor.model
    digest = blake2b(digest_size=16)
    for name, tensor in model.network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    origin = {
        "network": digest.hexdigest(),
        "spec": asdict(model.network.spec),
        "task": model.task,
        "classes": model.classes,
        "preprocessing": model.preprocessing.to_dict(),
        "temperature": model.calibration.temperature,
        "precision": str(predictor.precision),
        "top": predictor.top,
    }
    return json.loads(json.dumps(origin | predictor.thresholds))  # as it will be read again


def _file(path: str | Path) -> list[Any] | None:
    """What tells a file from another of its name, or from what it was, without reading it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [os.path.abspath(path), found.st_size, found.st_mtime_ns]


def _answered(journal: Path, origin: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By path the entries that hold: an answer each, and the file that it is to."""
    if not journal.exists():
        return {}
    try:
        text = journal.read_text(encoding="utf-8")
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        if not whole:
            return {}
        begun, *entries = map(json.loads, whole)
        done = {
            entry["answer"]["path"]: entry
            for entry in entries
            if "error" not in entry["answer"] and entry["file"] == _file(entry["answer"]["path"])
        }
    except (ValueError, TypeError, KeyError) as error:
        raise ResnetkitError(
            f"{journal}: not a file of answers, or an earlier version's; delete it to start anew"
        ) from error
    if begun != origin:
        raise ResnetkitError(
            f"{journal}: answers begun with another model, preprocessing, precision, top or thresholds; "
            "delete it to start anew"
        )
    return done


def _reopen(journal: Path, origin: dict[str, Any], done: dict[str, dict[str, Any]]) -> TextIO:
    """The journal open at its end, without the line that an interruption may have torn."""
    write_text(journal, "".join(json.dumps(entry) + "\n" for entry in (origin, *done.values())))
    return open(journal, "a", encoding="utf-8")


def _write(out: Path, format: str, answers: Iterable[dict[str, Any]]) -> None:
    if format == "parquet":
        write_atomically(out, lambda partial: _write_parquet(partial, answers))
    else:
        lines = [text for text in (header(format),) if text] + [line(answer, format) for answer in answers]
        write_text(out, "".join(f"{text}\n" for text in lines))


def _write_parquet(path: Path, answers: Iterable[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ranked = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))
    kinds = {"path": pa.string(), "label": pa.string(), "probability": pa.float64(), "top": ranked}
    names = pa.list_(pa.string())
    schema = pa.schema(kinds | {"set": names, "labels": names, "error": pa.string()})
    rows = [
        answer
        | {
            "path": answer["path"].encode("utf-8", "backslashreplace").decode(),
            "top": [{"label": label, "probability": p} for label, p in answer.get("top", ())],
        }
        for answer in answers
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def _row(answer: dict[str, Any]) -> tuple[Any, ...]:
    """The columns; what is several is a JSON list, for class names may hold any separator."""
    lists = {name: json.dumps(answer[name], ensure_ascii=False) for name in LISTS if name in answer}
    values = answer | lists
    return tuple("" if values.get(column) is None else values[column] for column in COLUMNS)
