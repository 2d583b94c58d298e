"""A safetensors file: its header is checked before a tensor is made, and both come from one descriptor.

Format: 8 bytes little-endian length of the header, the header in JSON, then the tensors without holes or overlaps.
Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetkit.errors import ModelFileRefused
from resnetkit.weights.untrusted import one_line, open_untrusted, shown, size_of

# The format allows headers of 100 MB. The 60,000 tensors of a network of 10,004 layers take 7 MB, and JSON's values
# cost up to 70 bytes of memory each.
HEADER_BYTES = 16 << 20
HEADER_VALUES = 1_000_000
RANK = 16
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the file: bytes `begin` to `end` after the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file. Raises ModelFileRefused."""
    with open_untrusted(path) as file:
        return read_open_safetensors(path, file)


def read_open_safetensors(path: Path, file: BufferedReader) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same of a file that is open. Raises ModelFileRefused."""
    try:
        start, entries, metadata = read_header(file)
        return {name: read_tensor(file, start, entry) for name, entry in entries.items()}, metadata
    except (ValueError, RecursionError, OSError) as error:
        reason = "the header nests too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise ModelFileRefused(f"{path}: not a safetensors file: {reason}; download or write it again") from error


def read_header(file: BufferedReader) -> tuple[int, dict[str, Entry], dict[str, str]]:
    """The byte at which tensors begin, where each lies, and the metadata. Raises ValueError, RecursionError."""
    size = size_of(file)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > size - 8:
        raise ValueError(f"it has {size} bytes and claims a header of {length}")
    if length > HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes; at most {HEADER_BYTES} are read")
    text = file.read(length)
    if text.count(b",") + text.count(b"[") + text.count(b"{") > HEADER_VALUES:
        raise ValueError(f"over {HEADER_VALUES} values in the header")
    header = json.loads(text, object_pairs_hook=without_duplicates)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("the metadata is not text under names")
    entries = {name: entry(name, fields) for name, fields in header.items()}
    check_cover(entries, size - 8 - length)
    return 8 + length, entries, metadata


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which must not name a thing twice. Raises ValueError."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{shown(twice)} stands twice in the header")
    return unique


def entry(name: str, fields: Any) -> Entry:
    """One line of the header. Raises ValueError where it is not what the format says."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} lacks dtype, shape and data_offsets, or has more")
    shape, offsets = fields["shape"], fields["data_offsets"]
    if not counts(shape) or not counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"shape or data_offsets of {shown(name)} are impossible")
    dtype = DTYPES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{shown(name)} has the unknown dtype {shown(fields['dtype'])}")
    if len(shape) > RANK or prod(max(side, 1) for side in shape) >= 1 << 60:
        raise ValueError(f"the shape of {shown(name)} is impossible")
    needed, given = prod(shape) * dtype.itemsize, offsets[1] - offsets[0]
    if needed != given:
        raise ValueError(f"{shown(name)} has {given} bytes, but its shape needs {needed}")
    return Entry(dtype, tuple(shape), *offsets)


def counts(value: Any) -> bool:
    """Whether it is a list of whole numbers from 0."""
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def check_cover(entries: dict[str, Entry], size: int) -> None:
    """Raise ValueError where tensors overlap, leave a hole, or do not end with the file."""
    reached = 0
    for name, place in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != reached:
            what = "overlaps the tensor before it" if place.begin < reached else "leaves a hole before it"
            raise ValueError(f"{shown(name)} {what}")
        reached = place.end
    if reached != size:
        raise ValueError(f"its tensors need {reached} bytes, but {size} follow the header")


def read_tensor(file: BufferedReader, start: int, place: Entry) -> Tensor:
    """The tensor that lies there, in memory of its own. Raises ValueError where the file has become shorter."""
    tensor = torch.empty(place.shape, dtype=place.dtype)
    file.seek(start + place.begin)
    if tensor.numel() and file.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data) != place.end - place.begin:
        raise ValueError("it became shorter while it was read")
    return tensor
