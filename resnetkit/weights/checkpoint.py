"""Anybody's checkpoint, opened as data: nothing in it can run, and what is damaged or hostile is refused.

Which network the tensors are of is not asked here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetkit.data.guard import looks_like_an_image
from resnetkit.errors import ModelFileRefused
from resnetkit.weights.pickled import read_pickled
from resnetkit.weights.safetensors_file import read_open_safetensors, read_safetensors
from resnetkit.weights.untrusted import INDEX_BYTES, open_untrusted, read_json, shown, size_of, within

CONFIG = "config.json"
SINGLE, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"

# First bytes of files that are mistaken for checkpoints: what each is, and the cure.
STRANGERS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file it stands for", "fetch it with git lfs pull"),
    b"<": ("a web page", "download the file itself"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"\x1f\x8b": ("a gzip archive", "unpack it"),
    b"\xfd7zXZ": ("an xz archive", "unpack it"),
    b"BZh": ("a bzip2 archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"GGUF": ("a GGUF file", "get the checkpoint in safetensors"),
    b"\x93NUMPY": ("a NumPy array", "save tensors as safetensors"),
}
SAVED = (b"PK\3\4", b"\x80")  # an archive of torch.save, or the protocol that its older layout opens with


@dataclass
class Checkpoint:
    """Tensors of a file under the names they have there, and what lies beside them."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file
    config: dict[str, Any] = field(default_factory=dict)  # config.json beside the file: Hugging Face's or timm's
    notes: list[str] = field(default_factory=list)  # what was left out and why, a line each


def open_checkpoint(path: Path, *, force: bool = False) -> Checkpoint:
    """A safetensors file, a file of torch.save, or a Hugging Face or timm folder; files go by content, not by suffix.

    `force` lets weights that are not finite and negative variances pass. Raises ModelFileRefused.
    """
    path = Path(path)
    checkpoint = open_folder(path) if path.is_dir() else open_with_neighbour(path)
    if not checkpoint.tensors:
        raise ModelFileRefused(f"{path}: no tensor in it; save a network's state_dict")
    checkpoint.notes += require_sound(path, checkpoint.tensors, force=force)
    return checkpoint


def require_sound(path: Path, tensors: dict[str, Tensor], *, force: bool) -> list[str]:
    """Raise ModelFileRefused for weights that are not finite and negative variances; with `force` note them instead."""
    problems = list(bad_values(tensors))
    if problems and not force:
        more = f", as {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ModelFileRefused(f"{path}: {problems[0]}{more}; get a sound copy, or `resnet convert --force` it")
    return [f"forced: {problem}" for problem in problems]


def open_folder(folder: Path) -> Checkpoint:
    if (folder / SINGLE).exists():
        checkpoint = open_file(within(folder, SINGLE))
    elif (folder / INDEX).exists():
        checkpoint = open_shards(folder)
    elif (folder / PICKLED).exists():
        checkpoint = open_file(within(folder, PICKLED))
    else:
        raise ModelFileRefused(f"{folder}: no {SINGLE}, {INDEX} or {PICKLED} in it; name the checkpoint's file")
    checkpoint.config = read_config(folder)
    return checkpoint


def open_with_neighbour(path: Path) -> Checkpoint:
    """A file, and the config.json beside it, which may be another program's."""
    checkpoint = open_file(path)
    try:
        checkpoint.config = read_config(path.parent)
    except ModelFileRefused as refusal:
        checkpoint.notes.append(f"left out: {refusal}")
    return checkpoint


def open_file(path: Path) -> Checkpoint:
    with open_untrusted(path) as file:
        start = file.read(64)
        if is_safetensors(path, start):
            tensors, metadata = read_open_safetensors(path, file)
            return Checkpoint(path, tensors, metadata)
        if is_keras(file, start):
            raise ModelFileRefused(f"{path}: a Keras file among others; name it by itself")
        if not start:
            raise ModelFileRefused(f"{path}: an empty file; download it again")
        for sign, (what, cure) in STRANGERS.items():
            if start.startswith(sign):
                raise ModelFileRefused(f"{path}: {what}; {cure}")
        if looks_like_an_image(start):
            raise ModelFileRefused(f"{path}: an image, and no checkpoint; in a command the model comes first")
        if not start.startswith(SAVED):
            raise ModelFileRefused(f"{path}: no checkpoint; name a file of torch.save, safetensors or Keras, or a run")
        tensors, notes = read_pickled(path, file)
        return Checkpoint(path, tensors, notes=notes)


def open_shards(folder: Path) -> Checkpoint:
    """The tensors of several safetensors files, each in the file where the index says it is."""
    index = within(folder, INDEX)
    places = read_json(index, INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ModelFileRefused(f"{index}: no weight_map of tensors and files; download it again")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        shard, _ = read_safetensors(within(folder, name))
        expected = {tensor for tensor, file in places.items() if file == name}
        if shard.keys() != expected:
            differing = shown(min(shard.keys() ^ expected))
            raise ModelFileRefused(f"{index}: {differing} is not where it says; download {shown(name)} again")
        tensors |= shard
    return Checkpoint(folder, tensors)


def is_safetensors(path: Path, start: bytes) -> bool:
    """By its suffix or by the brace that opens its header: nothing else that is read here has one in that place."""
    return bool(start) and (path.suffix == ".safetensors" or start[8:9] == b"{")


def is_keras(file: BufferedReader, start: bytes) -> bool:
    """HDF5, or a zip archive with Keras' record of weights."""
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return True
    file.seek(max(size_of(file) - (1 << 16), 0))
    listing = file.read() if start.startswith(b"PK\3\4") else b""
    file.seek(0)
    return b"model.weights.h5" in listing and b"data.pkl" not in listing


def is_keras_file(path: Path) -> bool:
    """Whether weights.from_keras is to read it. Raises ModelFileRefused for what is no plain file."""
    with open_untrusted(path) as file:
        return is_keras(file, file.read(64))


def read_config(folder: Path) -> dict[str, Any]:
    return read_json(within(folder, CONFIG)) if (folder / CONFIG).exists() else {}


def bad_values(tensors: dict[str, Tensor]) -> Iterable[str]:
    """What cannot be weights of a trained network, a line a tensor."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()) or name.endswith("num_batches_tracked"):
            continue
        values = tensor.float() if tensor.element_size() == 1 else tensor  # isfinite has no float8
        if not bool(torch.isfinite(values).all()):
            yield f"{shown(name)} has weights that are NaN or infinite"
        elif is_variance(name, tensor) and bool((values < 0).any()):
            yield f"{shown(name)} has a negative variance"


def is_variance(name: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point() and ("running_var" in name or "moving_variance" in name)
