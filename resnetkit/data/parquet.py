"""Parquet as Hugging Face writes it: images embedded, one row each."""

import json
from pathlib import Path
from typing import Any

import torch

from resnetkit.data.parts import Dataset, Part, in_label_order, split_of
from resnetkit.errors import ResnetkitError


def parquet(name: str, files: list[Path]) -> Dataset:
    """Hugging Face's layout: an image column of {bytes, path}, a label column, class names in the schema metadata.

    A file belongs to the split whose name begins its own, or is its folder's.
    """
    import pyarrow.parquet as pq

    splits = {file: split_of(file) for file in files}
    known = set(splits.values()) - {None}
    tables: dict[str, list[tuple[Path, Any]]] = {}
    for file, split in splits.items():
        if split is None and known:
            raise ResnetkitError(f"{file}: which part is it? Begin its name with train, val or test, as the others'")
        try:
            table = pq.read_table(file)
        except Exception as error:
            raise ResnetkitError(f"{file}: not readable as Parquet: {str(error).splitlines()[0]}") from error
        tables.setdefault(split or "all", []).append((file, table))
    image_column, label_column, classes = _columns(*next(iter(tables.values()))[0])
    values = {split: _column(pairs, label_column) for split, pairs in tables.items()}
    index: dict[Any, int] = {label: i for i, label in enumerate(classes)} | {i: i for i in range(len(classes))}
    if not classes:
        found = {value for column in values.values() for value in column if value is not None}
        ranked = in_label_order(found)
        classes, index = [str(v) for v in ranked], {v: i for i, v in enumerate(ranked)}
    parts = {}
    for split, pairs in tables.items():
        images = [row["bytes"] if isinstance(row, dict) else row for row in _column(pairs, image_column)]
        names = [f"{file.name}#{i}" for file, table in pairs for i in range(table.num_rows)]
        for row_name, image, value in zip(names, images, values[split]):
            if not isinstance(image, bytes):
                raise ResnetkitError(f"{row_name}: the image column holds no bytes; embed the images in the file")
            if value not in index:
                raise ResnetkitError(f"{row_name}: label {value!r} is none of the {len(classes)} classes")
        parts[split] = Part(images, torch.tensor([index[value] for value in values[split]]), names)
    return Dataset(name, classes, parts)


def _column(pairs: list[Any], column: str) -> list[Any]:
    for file, table in pairs:
        if column not in table.column_names:
            raise ResnetkitError(f"{file}: no column {column!r}, which the first file has")
    return [value for _, table in pairs for value in table.column(column).to_pylist()]


def _columns(file: Path, table: Any) -> tuple[str, str, list[str]]:
    """The image and the label column, and the class names where the metadata has them."""
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict)}
    images = [n for n in table.column_names if kinds.get(n) == "Image" or n in ("image", "img", "bytes")]
    labels = [n for n in table.column_names if kinds.get(n) == "ClassLabel" or n in ("label", "labels")]
    if not images or not labels:
        missing = "image" if not images else "label"
        raise ResnetkitError(f"{file}: no {missing} column; columns: {', '.join(table.column_names)}")
    label = "label" if "label" in labels else labels[0]
    return images[0], label, list(features.get(label, {}).get("names", []))
