"""Parquet as Hugging Face writes it: images embedded, one row each."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from resnetkit.data.encoded import Encoded
from resnetkit.data.labels import from_sets, require_writable
from resnetkit.data.parts import (
    Dataset,
    Part,
    file_names,
    in_label_order,
    numbered_where_equal,
    parts_of,
    require_plain_names,
)
from resnetkit.data.unpacked import require_space_for, unpacked
from resnetkit.errors import ResnetkitError, did_you_mean

MAX_HELD = 2**30  # bytes of encoded images that are held in memory
ROWS = 16  # read at a time
IMAGES = ("image", "img", "pixel_values")  # what the column is called
BUFFER = 2**20  # bytes of a file read ahead


def parquet(name: str, root: Path, files: list[Path], column: str | None = None) -> Dataset:
    """Hugging Face's layout: an image column of {bytes, path}, a label column, class names in the schema metadata.

    `column` says which has the labels where several could. Labels that are lists have the classes of each image, none
    or several. Names of files and folders say the part, see `parts_of`. Images of more than MAX_HELD
    bytes together are unpacked into the user's cache. `root` is the folder of the set.
    """
    of_split: dict[str, list[Path]] = {}
    for file, split in parts_of(files, root).items():
        of_split.setdefault(split, []).append(file)
    about = {file: _metadata(file) for file in files}
    first = next(iter(of_split.values()))[0]
    image_column, label_column, classes = _columns(first, about[first], column)
    for file, metadata in about.items():
        _require_columns(file, metadata, image_column, label_column)
    values = {
        split: [label for file in own for rows in _rows(file, label_column) for label in rows]
        for split, own in of_split.items()
    }
    multilabel = any(isinstance(value, list) for own in values.values() for value in own)
    _require_no_flags(name, [row for own in values.values() for row in own if isinstance(row, list)])
    chosen = {split: [v if multilabel else [v] for v in own] for split, own in values.items()}
    index: dict[Any, int] = {label: i for i, label in enumerate(classes)} | {i: i for i in range(len(classes))}
    if not classes:
        rows_of = (row for own in chosen.values() for row in own if isinstance(row, list))
        found = {v for row in rows_of for v in row if v is not None and v == v}  # nothing, or no number
        ranked = in_label_order(found)
        classes, index = [str(v) for v in ranked], {v: i for i, v in enumerate(ranked)}
    require_plain_names(name, classes)
    sizes = {file: _bytes(metadata, image_column) for file, metadata in about.items()}
    held = sum(sizes.values()) <= MAX_HELD
    if not held:
        require_space_for(sizes)
    parts, called = {}, file_names(root, files)
    # Equal images are one object: by a dictionary a small file has many of them.
    same: dict[bytes, bytes] = {}
    for split, own in of_split.items():
        names = [f"{called[file]}#{i}" for file in own for i in range(about[file].num_rows)]
        if not names:
            raise ResnetkitError(f"{own[0]}: the {split} part has no rows; remove it")
        places = [_places(row, index, row_name, len(classes)) for row, row_name in zip(chosen[split], names)]
        labels = from_sets(places, len(classes)) if multilabel else torch.tensor(places)[:, 0]
        images: list[Encoded] = []
        for file in own:
            rows = _images(file, image_column)
            images += (same.setdefault(data, data) for data in rows) if held else unpacked(file, rows)
        parts[split] = Part(images, labels, names)
    if multilabel:
        require_writable(name, classes)
    return Dataset(name, classes, parts)


def beside_pictures(files: list[Path]) -> list[Path]:
    """Which of the files are a set, where pictures lie beside them: none where no image lies in any, which are then
    tables about the pictures, else those with a column of images."""
    about = {file: _metadata(file) for file in files}
    if not any(_holds_images(file, metadata) for file, metadata in about.items()):
        return []
    return [file for file, metadata in about.items() if _image_columns(metadata, _features(file, metadata))]


def _holds_images(file: Path, about: Any) -> bool:
    """Rather than numbers or the paths of some."""
    held = {field.name for field in about.schema.to_arrow_schema() if _holds_bytes(field.type)}
    return bool(held) and not held.isdisjoint(_image_columns(about, _features(file, about)))


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    alone = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return alone or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _metadata(file: Path) -> Any:
    import pyarrow.parquet as pq

    with _readable(file):
        return pq.read_metadata(file)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ResnetkitError(f"{file}: not readable as Parquet: {str(error).splitlines()[0]}") from error


def _require_columns(file: Path, metadata: Any, image: str, label: str) -> None:
    import pyarrow as pa

    schema = metadata.schema.to_arrow_schema()
    for column in (image, label):
        if column not in schema.names:
            raise ResnetkitError(f"{file}: no column {column!r}, which the first file has")
    kind = schema.field(label).type
    if pa.types.is_nested(getattr(kind, "value_type", kind)):  # of a list's items
        raise ResnetkitError(f"{file}: column {label!r} holds {kind}; a label is a number or a text, or a list of them")


def _images(file: Path, column: str) -> Iterator[bytes]:
    row = 0
    for rows in _rows(file, column):
        for image in rows:
            data = image["bytes"] if isinstance(image, dict) else image
            if not isinstance(data, bytes):
                raise ResnetkitError(f"{file}#{row}: the image column holds no bytes; embed the images in the file")
            yield data
            row += 1


def _rows(file: Path, column: str) -> Iterator[list[Any]]:
    """The values of a column, some rows at a time."""
    import pyarrow.parquet as pq

    # With pre_buffer pyarrow keeps what it has read until the end of the file.
    with _readable(file), pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as opened:
        for batch in opened.iter_batches(ROWS, columns=[column]):
            yield batch.column(0).to_pylist()


def _bytes(metadata: Any, column: str) -> int:
    """What a column takes, unpacked."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}."))


def _places(labels: Any, index: dict[Any, int], row_name: str, classes: int) -> list[int]:
    if not isinstance(labels, list):
        raise ResnetkitError(f"{row_name}: labels {labels!r} are no list; an empty one says none of the classes")
    for label in labels:
        if label not in index:
            raise ResnetkitError(f"{row_name}: label {label!r} is none of the {classes} classes")
    return [index[label] for label in dict.fromkeys(labels)]


def _require_no_flags(where: str, lists: Sequence[list[Any]]) -> None:
    """Raise ResnetkitError for lists that say 0 or 1 of each class: as labels they would be of two classes."""
    alike = len({len(row) for row in lists}) == 1 and any(len(set(row)) < len(row) for row in lists)
    if alike and all(value in (0, 1, "0", "1") for row in lists for value in row):
        told = f"labels {lists[0]!r} say 0 or 1 of each class"
        raise ResnetkitError(f"{where}: {told}; they must name those of the image")


def _columns(file: Path, about: Any, column: str | None) -> tuple[str, str, list[str]]:
    """The image and the label column, and the class names where the metadata has them."""
    names = about.schema.to_arrow_schema().names
    features = _features(file, about)
    labels = [n for n in names if features.get(n, {}).get("_type") == "ClassLabel" or n in ("label", "labels")]
    image = _only(
        file, IMAGES, _image_columns(about, features), names, "keep one, or call the one to learn from `image`"
    )
    if column is None:
        label = _only(file, ("label",), labels, names, "say which behind the path, as PATH:" + (labels or names)[0])
    elif column in names:
        label = column
    else:
        raise ResnetkitError(f"{file}: no column {column!r}; {did_you_mean(column, names)}")
    classes = features.get(label, {}).get("names", [])
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        raise ResnetkitError(f"{file}: its `huggingface` metadata is damaged (the class names are no list of texts)")
    return image, label, numbered_where_equal(classes)


def _image_columns(about: Any, features: dict[str, dict[str, Any]]) -> list[str]:
    """By what the metadata says, else by their names."""
    names = about.schema.to_arrow_schema().names
    told = [name for name in names if features.get(name, {}).get("_type") == "Image"]
    return told or [name for name in names if name in (*IMAGES, "bytes")]


def _only(file: Path, usual: tuple[str, ...], found: list[str], names: list[str], cure: str) -> str:
    """The column that was found, or of several the one that is called as is usual."""
    if not found:
        raise ResnetkitError(f"{file}: no {usual[0]} column; columns: {', '.join(names)}")
    called = [name for name in usual if name in found]
    if len(found) > 1 and not called:
        raise ResnetkitError(f"{file}: several {usual[0]} columns, {', '.join(found)}; {cure}")
    return called[0] if called else found[0]


def _features(file: Path, about: Any) -> dict[str, dict[str, Any]]:
    """What Hugging Face's metadata says of the columns, of a list's items where it is a list."""
    try:
        info = json.loads((about.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
        features = {column: _of_items(feature) for column, feature in info.get("features", {}).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ResnetkitError(f"{file}: its `huggingface` metadata is damaged ({error}); write it again") from error
    return {column: feature for column, feature in features.items() if isinstance(feature, dict)}


def _of_items(feature: Any) -> Any:
    """What a list's items are, for a feature that is a list: `Sequence` or `List` of something, or [something]."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    inner = feature.get("feature") if isinstance(feature, dict) else None
    return feature if inner is None else inner
