"""What is refused before a decoder sees it: other formats, damage that decoders overlook, work without end."""

import re
import struct
import zlib

from resnetkit.data.encoded import MAX_FILE

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's names; no other decoder is entered
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: a quarter of a GiB as RGB
MAX_SCANS = 100  # of a JPEG; a progressive one has about ten
MAX_SCANNED = 2**31  # pixels times scans: about two seconds
MAX_SECTIONS = 100_000  # markers of a JPEG, chunks of a PNG, strips of a TIFF
PYTHON_CODECS = frozenset({"ppm", "ppm_plain", "bmp_rle"})  # Pillow decodes these pixel by pixel in Python
MAX_PYTHON = 2**20  # pixels, or eight times as many bytes of file, for those: about a second

_OTHERS = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"8BPS": "Photoshop",
    b"SIMPLE  =": "FITS",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"icns": "ICNS",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\0\0\1\0": "ICO",
    b"PK\3\4": "a zip archive",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_MARKUP = re.compile(rb"<(!doctype )?(html|svg)\b", re.IGNORECASE)
_OURS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x93NUMPY")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in pixel data 0xff is followed by 0 or a restart


def looks_like_an_image(head: bytes) -> bool:
    """Whether a file that begins so is in a format we read."""
    return head.startswith(_OURS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def refusal(data: bytes) -> str | None:
    """Why these bytes are not given to a decoder, or None."""
    if not data:
        return "an empty file"
    if other := _other_format(data):
        return f"{other} is not read; save it as JPEG or PNG"
    if data.startswith(b"\xff\xd8"):
        scans = jpeg_scans(data)
        return None if scans <= MAX_SCANS else f"a JPEG of more than {MAX_SCANS} scans, slow beyond reason"
    return _png_damage(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def _other_format(data: bytes) -> str | None:
    for start, name in _OTHERS.items():
        if data.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video")
    markup = _MARKUP.search(data[:1000]) if data[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else None
    return {b"html": "an HTML page", b"svg": "SVG"}[markup[2].lower()] if markup else None


def jpeg_scans(data: bytes) -> int:
    """The scans of a JPEG up to its end marker, counted no further than one past MAX_SCANS."""
    position = scans = 0
    for _ in range(MAX_SECTIONS):
        marker = _MARKER.search(data, position)
        if marker is None or marker[0] == b"\xff\xd9" or scans > MAX_SCANS:
            return scans
        position = marker.end()
        if marker[0] in (b"\xff\xd8", b"\xff\x01"):  # these two have no length
            continue
        scans += marker[0] == b"\xff\xda"
        position += int.from_bytes(data[position : position + 2])
    return MAX_SCANS + 1


def _png_damage(data: bytes) -> str | None:
    """Pillow reads over a wrong checksum of the pixels and a missing end."""
    position = 8
    for _ in range(MAX_SECTIONS):
        if position + 12 > len(data):
            return "a PNG that is cut short"
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            return "a PNG that is cut short"
        critical = kind[:1].isupper()
        if critical and zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return f"a PNG with a wrong checksum in {kind.decode('latin-1')}"
        if kind == b"IEND":
            return None
        position = end + 4
    return f"a PNG of more than {MAX_SECTIONS:,} chunks"


def too_much(width: int, height: int, codec: str, data: bytes) -> str | None:
    """Why an image of these sides is not decoded, or None. `codec` is Pillow's name of what would decode it."""
    pixels = width * height
    if pixels > MAX_PIXELS:
        return f"{width}x{height} pixels; {MAX_PIXELS:,} are the most that is decoded"
    if codec == "jpeg" and pixels * jpeg_scans(data) > MAX_SCANNED:
        return f"{width}x{height} pixels in {jpeg_scans(data)} scans, slow beyond reason"
    if codec in PYTHON_CODECS and max(pixels, len(data) // 8) > MAX_PYTHON:
        return f"{width}x{height} pixels in a form that decodes slowly; save it as PNG"
    return None


def array_too_large(height: int, width: int, pixel: int) -> str | None:
    """Why values of these sides and so many bytes a pixel are not read, or None."""
    if height * width > MAX_PIXELS:
        return f"{width}x{height} pixels; {MAX_PIXELS:,} are the most that is decoded"
    if height * width * pixel > MAX_FILE:
        return f"{height * width * pixel >> 20:,} MiB of values; {MAX_FILE >> 20} are the most that is decoded"
    return None


def segments_too_large(count: int, size: int) -> str | None:
    """Why so many strips or tiles of so many bytes, inflated, are not read, or None."""
    if count > MAX_SECTIONS:
        return f"a TIFF of more than {MAX_SECTIONS:,} strips"
    if count * size > MAX_FILE:
        return f"a TIFF of {count * size >> 20:,} MiB in strips; {MAX_FILE >> 20} are the most that is decoded"
    return None
