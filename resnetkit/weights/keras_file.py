"""A Keras file as data: its config as JSON, its tensors as arrays. Nothing in it runs.

Three kinds: the legacy `.h5` (a whole model, or weights alone), the archive `.keras`, and `.weights.h5`.
"""

import io
import json
import re
import zipfile
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.errors import ModelFileRefused, ResnetkitError

CONFIG_LIMIT = 64 * 2**20  # bytes; ResNet-1001's config takes 4 MiB
SIGNATURES = {b"PK\x03\x04": "archive", b"\x89HDF": "hdf5"}


class KerasFile:
    """`config` is the model's, None where the file holds weights alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] | None = None
        with path.open("rb") as file:
            kind = SIGNATURES.get(file.read(4))
        if kind is None:
            raise ModelFileRefused("neither an HDF5 file nor a .keras archive")
        self._source: Path | io.BytesIO = path
        if kind == "archive":
            self._open_archive()
        self._file = _open_hdf5(self._source)
        try:
            self._look()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "KerasFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open_archive(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.config = _parse(self._member(archive, "config.json", CONFIG_LIMIT))
                weights = self._member(archive, "model.weights.h5", self.path.stat().st_size)
                self._source = io.BytesIO(weights)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise ModelFileRefused(f"a damaged archive: {error}") from error

    def _member(self, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
        try:
            declared = archive.getinfo(name).file_size
        except KeyError:
            raise ModelFileRefused(f"an archive without {name}, so no .keras file") from None
        if declared > limit:
            raise ModelFileRefused(f"{name} declares {declared} bytes, more than the {limit} allowed")
        return archive.read(name)

    def _look(self) -> None:
        self._refuse_what_lies_elsewhere()
        legacy = "model_weights" in self._file or "layer_names" in self._file.attrs
        self._numbered = not legacy
        self._root = self._file.get("model_weights", self._file)
        if "model_config" in self._file.attrs:
            self.config = _parse(self._file.attrs["model_config"])

    def _refuse_what_lies_elsewhere(self) -> None:
        """Links out of the file, arrays stored outside it, and arrays larger than it."""
        room = self.path.stat().st_size

        def visit(group: Any, depth: int) -> None:
            nonlocal room
            if depth > 64:
                raise ModelFileRefused("groups nested more than 64 deep")
            for name in group:
                if type(group.get(name, getlink=True)).__name__ != "HardLink":
                    raise ModelFileRefused(f"{name} is a link, not data")
                value = group[name]
                if not hasattr(value, "shape"):
                    visit(value, depth + 1)
                    continue
                room -= value.nbytes
                if value.external or value.is_virtual or room < 0:
                    raise ModelFileRefused(f"{value.name} {value.shape} is larger than the file")

        try:
            visit(self._file, 0)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, ResnetkitError):
                raise
            raise ModelFileRefused(f"a damaged HDF5 file: {error}") from error

    def weight_layers(self) -> list[str]:
        """The names of the layers that hold tensors, where the file says names."""
        if not self._numbered:
            return [name for name in _words(self._root.attrs, "layer_names") if self._legacy((name,))]
        return list(self._stores)

    @cached_property
    def _stores(self) -> dict[str, Any]:
        """What Keras 3 writes since 3.8: layer names beside the numbered groups of their tensors."""
        stores: dict[str, Any] = {}

        def visit(_: str, group: Any) -> None:
            if "name" in group.attrs and len(group):
                stores[_text(group.attrs["name"])] = group

        self._file.visititems(visit)
        return stores

    def tensors(self, names: tuple[str, ...], numbered: tuple[str, ...] | None) -> list[np.ndarray]:
        """The arrays of a layer in Keras's order: `names` leads to it through models in models, and so does `numbered`
        as Keras 3 numbers layers by class. Raises ModelFileRefused."""
        try:
            found = self._by_number(names, numbered) if self._numbered else self._legacy(names)
            arrays = [array[()] for array in found]
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ModelFileRefused(f"layer {'/'.join(names)}: its tensors are missing: {error}") from error
        for array in arrays:
            if not (isinstance(array, np.ndarray) and array.dtype.kind == "f") and array.shape:
                raise ModelFileRefused(f"layer {'/'.join(names)} holds {array.dtype} numbers; save it in float32")
        return arrays

    def _by_number(self, names: tuple[str, ...], numbered: tuple[str, ...] | None) -> list[Any]:
        if numbered is None:
            group = self._stores[names[-1]]
        else:
            group = self._file
            for name in numbered:
                group = group["layers"][name]
            group = group.get("vars", {})
        return [group[str(i)] for i in range(len(group))]

    def _legacy(self, names: tuple[str, ...]) -> list[Any]:
        group = self._root[names[0]]
        paths = _words(group.attrs, "weight_names")
        if len(names) > 1:  # a model in the model keeps the tensors of all its layers in one group
            paths = [path for path in paths if names[-1] in path.split("/")[:-1]]
        return [group[path] for path in paths]


def snake(class_name: str) -> str:
    """A class name as Keras 3 numbers its layers in files: Conv2D, conv2d."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _open_hdf5(source: Path | io.BytesIO) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ResnetkitError("Keras files need h5py: pip install 'resnetkit[keras]'") from error
    try:
        return h5py.File(source, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelFileRefused(f"a damaged HDF5 file: {error}") from error


def _words(attributes: Any, name: str) -> list[str]:
    """A list of names, which Keras cuts into `name0`, `name1`, ... where it is long."""
    if name in attributes:
        return [_text(word) for word in attributes[name]]
    parts = takewhile(lambda part: part in attributes, (f"{name}{i}" for i in count()))
    return [_text(word) for part in parts for word in attributes[part]]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _parse(text: Any) -> dict[str, Any]:
    try:
        config = json.loads(_text(text))
    except (ValueError, RecursionError) as error:
        raise ModelFileRefused(f"its config is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelFileRefused("its config is no JSON object")
    return config
