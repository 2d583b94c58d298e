"""Parquet as Hugging Face writes it: images embedded, one row each."""

import json
from pathlib import Path
from typing import Any

import torch

from resnetkit.data.labels import from_sets, require_writable
from resnetkit.data.parts import Dataset, Part, in_label_order, split_of
from resnetkit.errors import ResnetkitError


def parquet(name: str, files: list[Path]) -> Dataset:
    """Hugging Face's layout: an image column of {bytes, path}, a label column, class names in the schema metadata.

    Labels that are lists have the classes of each image, none or several. A file belongs to the split whose name begins
    its own, or is its folder's.
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
    multilabel = any(isinstance(value, list) for column in values.values() for value in column)
    chosen = {split: [v if multilabel else [v] for v in column] for split, column in values.items()}
    index: dict[Any, int] = {label: i for i, label in enumerate(classes)} | {i: i for i in range(len(classes))}
    if not classes:
        found = {
            v for column in chosen.values() for row in column if isinstance(row, list) for v in row if v is not None
        }
        ranked = in_label_order(found)
        classes, index = [str(v) for v in ranked], {v: i for i, v in enumerate(ranked)}
    parts = {}
    for split, pairs in tables.items():
        images = [row["bytes"] if isinstance(row, dict) else row for row in _column(pairs, image_column)]
        names = [f"{file.name}#{i}" for file, table in pairs for i in range(table.num_rows)]
        if bare := next((name for name, image in zip(names, images) if not isinstance(image, bytes)), None):
            raise ResnetkitError(f"{bare}: the image column holds no bytes; embed the images in the file")
        places = [_places(row, index, row_name, len(classes)) for row, row_name in zip(chosen[split], names)]
        labels = from_sets(places, len(classes)) if multilabel else torch.tensor(places)[:, 0]
        parts[split] = Part(images, labels, names)
    if multilabel:
        require_writable(name, classes)
    return Dataset(name, classes, parts)


def _places(labels: Any, index: dict[Any, int], row_name: str, classes: int) -> list[int]:
    if not isinstance(labels, list):
        raise ResnetkitError(f"{row_name}: labels {labels!r} are no list; an empty one says none of the classes")
    for label in labels:
        if label not in index:
            raise ResnetkitError(f"{row_name}: label {label!r} is none of the {classes} classes")
    return [index[label] for label in labels]


def _column(pairs: list[Any], column: str) -> list[Any]:
    for file, table in pairs:
        if column not in table.column_names:
            raise ResnetkitError(f"{file}: no column {column!r}, which the first file has")
    return [value for _, table in pairs for value in table.column(column).to_pylist()]


def _columns(file: Path, table: Any) -> tuple[str, str, list[str]]:
    """The image and the label column, and the class names where the metadata has them."""
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    features = {column: _of_items(feature) for column, feature in features.items()}
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict)}
    images = [n for n in table.column_names if kinds.get(n) == "Image" or n in ("image", "img", "bytes")]
    labels = [n for n in table.column_names if kinds.get(n) == "ClassLabel" or n in ("label", "labels")]
    if not images or not labels:
        missing = "image" if not images else "label"
        raise ResnetkitError(f"{file}: no {missing} column; columns: {', '.join(table.column_names)}")
    label = "label" if "label" in labels else labels[0]
    return images[0], label, list(features.get(label, {}).get("names", []))


def _of_items(feature: Any) -> Any:
    """What a list's items are, for a feature that is a list: `Sequence` or `List` of something, or [something]."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    inner = feature.get("feature") if isinstance(feature, dict) else None
    return feature if inner is None else inner
