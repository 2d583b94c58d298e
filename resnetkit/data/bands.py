"""Images of any number of bands: NumPy's .npy, and the TIFFs that are no picture of grey, colour and transparency.

Layouts: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html; TIFF 6.0, sections 8 and 18.
"""

import io
import re
import zlib
from math import prod
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from resnetkit.data import guard
from resnetkit.data.encoded import BadImage

NPY = b"\x93NUMPY"
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<>=|]?[a-z]\d{1,2})',\s*'fortran_order':\s*(True|False),"
    rb"\s*'shape':\s*\((\d{1,9}(?:,\s*\d{1,9})*),?\s*\),?\s*\}\s*"
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0")  # the last is BigTIFF, whose header is as long again
PHOTOMETRIC, SAMPLES, ORIENTATION, EXTRA_SAMPLES, SAMPLE_FORMAT = 262, 277, 274, 338, 339  # tags
GREY, RGB = (0, 1), 2  # values of PHOTOMETRIC
TRANSPARENCY = ((1,), (2,), (999,))  # EXTRA_SAMPLES of one alpha band; 999 as Corel writes it
FLOAT = 3  # in SAMPLE_FORMAT
UNCOMPRESSED, DEFLATE = 1, (8, 32946)
EXTRA = "tifffile, which is not here: pip install 'resnetkit[bands]'"


def read(data: bytes) -> np.ndarray | None:
    """uint8 (H, W, C) of an array file or a TIFF of bands; None for a picture, which Pillow reads. Raises BadImage."""
    if data.startswith(NPY):
        return as_bytes(_npy(data))
    if data.startswith(_TIFF) and (count := _tiff_bands(data)):
        return as_bytes(_tiff(data, count))
    return None


def as_bytes(values: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) of 8 bits, 16 bits or floats in 0..1 -> uint8 of the same shape. Raises BadImage."""
    if values.ndim not in (2, 3) or not values.size:
        raise BadImage(f"an array of shape {values.shape}; (height, width) or (height, width, bands) is read")
    if values.dtype == np.uint8:
        return values.copy()
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # in either order of bytes
        return (values // 257).astype(np.uint8)
    if values.dtype.kind != "f":
        raise BadImage(f"{values.dtype} values have no known range; save as uint8, uint16 or floats from 0 to 1")
    low, high = float(values.min()), float(values.max())
    if np.isnan(low):
        raise BadImage("NaN among its values; fill the gaps first")
    if low < 0 or high > 1:
        raise BadImage(f"float values from {low:g} to {high:g}; scale them to 0..1")
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _npy(data: bytes) -> np.ndarray:
    """The array over the bytes themselves: the header is matched, not evaluated, and nothing is made by its word."""
    width = 2 if data[6:7] == b"\1" else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    header = _HEADER.fullmatch(data[8 + width : start])
    if header is None:
        raise BadImage("a .npy of something other than plain numbers")
    shape = tuple(int(side) for side in header[3].split(b","))
    dtype = np.dtype(header[1].decode())
    _require_sane(shape, dtype)
    if len(data) - start != prod(shape) * dtype.itemsize:
        raise BadImage(f"a .npy that announces {prod(shape) * dtype.itemsize:,} bytes and has {len(data) - start:,}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if header[2] == b"True" else "C")


def _require_sane(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) > 1 and (reason := guard.array_too_large(shape[0], shape[1], prod(shape[2:]) * dtype.itemsize)):
        raise BadImage(reason)


def _tiff_bands(data: bytes) -> int:
    """How many bands a TIFF has, 0 where it is a picture: grey or palette, RGB, CMYK, with transparency or without."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if data[2:3] == b"+" else data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    colours, samples, extra = tags.get(PHOTOMETRIC), tags.get(SAMPLES, 1), tags.get(EXTRA_SAMPLES, ())
    if colours in GREY:
        picture = samples == 1 or (samples == 2 and extra in TRANSPARENCY)
    elif colours == RGB:
        picture = samples == 3 or (samples == 4 and extra in (*TRANSPARENCY, ()))
    else:
        return 0
    floats = samples > 1 and FLOAT in tags.get(SAMPLE_FORMAT, ())
    return samples if floats or not picture else 0


def _tiff(data: bytes, bands: int) -> np.ndarray:
    """(H, W, C) of the first page."""
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise BadImage(f"a TIFF of {bands} bands needs {EXTRA}") from error
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        _require_plain(page)
        _require_whole_segments(page, data)
        values = page.asarray(squeeze=False, maxworkers=1)  # (planes, depth, H, W, bands of a plane)
    height, width = values.shape[2:4]
    return values[:, 0].transpose(1, 2, 0, 3).reshape(height, width, -1)


def _require_plain(page: Any) -> None:
    """Raise BadImage for what is decoded by other means than copying and inflating, or not into one upright image."""
    if page.compression not in (UNCOMPRESSED, *DEFLATE):
        name = getattr(page.compression, "name", page.compression)
        raise BadImage(f"a TIFF of bands compressed by {name}; save it uncompressed or with deflate")
    if page.dtype is None or page.dtype.itemsize * 8 != page.bitspersample:
        raise BadImage(f"{page.bitspersample} bits a value; save as 8 or 16 bits, or as floats from 0 to 1")
    if page.imagedepth != 1:
        raise BadImage("a volume, not an image")
    if page.tags.valueof(ORIENTATION, 1) != 1:
        raise BadImage("a TIFF of bands that is turned by its orientation tag; save it upright")


def _require_whole_segments(page: Any, data: bytes) -> None:
    """Raise BadImage where strips or tiles lie outside the file, or are more than the image once inflated."""
    size, count = prod(page.chunks) * page.dtype.itemsize, prod(page.chunked)
    reason = guard.array_too_large(page.imagelength, page.imagewidth, page.samplesperpixel * page.dtype.itemsize)
    if reason or (reason := guard.segments_too_large(count, size)):
        raise BadImage(reason)
    segments = list(zip(page.dataoffsets, page.databytecounts))
    if len(segments) < count or any(not length or offset + length > len(data) for offset, length in segments):
        raise BadImage("a TIFF that is cut short")
    if page.compression == UNCOMPRESSED:
        return
    for offset, length in segments:
        inflated = zlib.decompressobj().decompress(data[offset : offset + length], size + 1)
        if len(inflated) > size:
            raise BadImage("a TIFF whose strips unpack to more than the image")
