"""A folder with every kind of bad or odd file that people's folders have, each with what must become of it."""

import io
import os
import re
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

GOOD = 240  # images a class, so that the bad ones are under a tenth


def pixels(height=24, width=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def photo(seed=0) -> Image.Image:
    return Image.fromarray(pixels(seed=seed))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows: bytes, *, colour=2, extra=b"") -> bytes:
    """A PNG chunk by chunk, with sides and contents that an encoder would not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def many_scans(count: int, side=64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(Image.new("RGB", (side, side), (9, 99, 200)), "jpeg", progressive=True)
    last = data[[m.start() for m in re.finditer(rb"\xff\xda", data)][-1] : -2]
    return data[:-2] + last * count + data[-2:]


def with_bit_flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@cache
def bad_contents() -> dict[str, tuple[bytes, str]]:
    """Bytes by file name, with the reason that must be given."""
    jpeg, whole = encoded(photo(), "jpeg"), encoded(photo(), "png")
    bomb_text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 80_000_000, 9))
    bomb_profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(b"a" * 80_000_000, 9))
    checksum = whole.index(b"IDAT") - 4
    checksum += 8 + struct.unpack_from(">I", whole, checksum)[0]
    not_a_number = np.full((8, 8), np.nan, np.float32)
    cut = {f"cut{share}.jpg": (jpeg[: len(jpeg) * share // 100], "(?i)truncated") for share in (10, 50, 90, 99)}
    return cut | {
        "empty.jpg": (b"", "empty file"),
        "no_end.jpg": (jpeg[:-2], "(?i)truncated"),
        "cut.png": (whole[: len(whole) // 2], "cut short"),
        "no_end.png": (whole[:-12], "cut short"),
        "checksum.png": (with_bit_flipped(whole, checksum), "wrong checksum in IDAT"),
        "bit.png": (with_bit_flipped(whole, whole.index(b"IDAT") + 200), "wrong checksum in IDAT"),
        "cut.gif": (encoded(photo(), "gif")[:-200], "(?i)truncated"),
        "cut.webp": (encoded(photo(), "webp", lossless=True)[:-200], "."),
        "cut.tif": (encoded(photo(), "tiff")[:900], "."),
        "cut.bmp": (encoded(photo(), "bmp")[:-200], "(?i)truncated"),
        "page.jpg": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page is not read"),
        "text.jpg": (b"this is no image", "not an image of a known format"),
        "zeros.jpg": (b"\0" * 4000, "not an image of a known format"),
        "nan.tif": (encoded(Image.fromarray(not_a_number), "tiff"), "NaN among its values; fill the gaps first"),
        "no_width.png": (png(0, 10, b""), "not an image of a known format"),
        "bomb.png": (png(50_000, 50_000, b"\0" * 1000), "pixels"),
        "text_bomb.png": (png(1, 1, b"\0abc", extra=bomb_text), "too large"),
        "profile_bomb.png": (png(1, 1, b"\0abc", extra=bomb_profile), "too large"),
        "scans.jpg": (many_scans(10_000), "more than 100 scans"),
        "chunks.png": (png(1, 1, b"\0abc", extra=chunk(b"teXt", b"") * 200_000), "more than 100,000 chunks"),
        "slow.ppm": (b"P6 2000 2000 100\n" + b"\1" * 12_000_000, "decodes slowly"),
        "picture.eps": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "PostScript is not read; save it as JPEG",
        ),
        "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript is not read"),
        "paper.pdf": (b"%PDF-1.7\n", "PDF is not read"),
        "drawing.svg": (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read"),
        "layers.psd": (b"8BPS\0\1" + b"\0" * 40, "Photoshop is not read"),
        "sky.fits": (b"SIMPLE  =                    T", "FITS is not read"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not read"),
        "scan.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not read"),
        "icon.icns": (b"icns\0\0\0\x08", "ICNS is not read"),
        "old.wmf": (b"\xd7\xcd\xc6\x9a" + b"\0" * 40, "WMF is not read"),
    }


@cache
def good_contents() -> dict[str, bytes]:
    """Bytes by file name of what is odd and yet an image."""
    image = photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
    clear = Image.fromarray(pixels(channels=4))
    palette = image.quantize(16)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "\x1b[31m=cmd()")
    frames = [photo(seed) for seed in range(3)]
    moving = {"save_all": True, "append_images": frames[1:]}
    return {
        "png.jpg": encoded(image, "png"),
        "LOUD.JPEG": encoded(image, "jpeg"),
        "Mixed.Jpg": encoded(image, "jpeg"),
        "no_suffix": encoded(image, "jpeg"),
        "appended.jpg": encoded(image, "jpeg") + b"PK\3\4<html>" + b"\xff\xda" * 200,
        "cmyk.jpg": encoded(image.convert("CMYK"), "jpeg"),
        "grey.jpg": encoded(image.convert("L"), "jpeg"),
        "progressive.jpg": encoded(image, "jpeg", progressive=True),
        "bit.png": encoded(image.convert("1"), "png"),
        "palette.png": encoded(palette, "png", transparency=0),
        "rgba.png": encoded(clear, "png"),
        "la.png": encoded(clear.convert("LA"), "png"),
        "text.png": encoded(image, "png", pnginfo=text),
        "sixteen.png": encoded(Image.fromarray(levels), "png"),
        "sixteen.tif": encoded(Image.fromarray(levels), "tiff"),
        "profile.jpg": encoded(image, "jpeg", icc_profile=b"no profile at all"),
        "turned.jpg": encoded(image, "jpeg", exif=exif),
        "exif.jpg": encoded(image, "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 300),
        "moving.gif": encoded(frames[0], "gif", **moving),
        "moving.webp": encoded(frames[0], "webp", **moving),
        "moving.png": encoded(frames[0], "png", **moving),
        "pages.tif": encoded(frames[0], "tiff", **moving),
        "dot.png": encoded(image.resize((1, 1)), "png"),
        "thread.png": encoded(image.resize((1, 20_000)), "png"),
        "ribbon.png": encoded(image.resize((20_000, 1)), "png"),
        "flat.png": encoded(Image.new("RGB", (40, 40), (7, 7, 7)), "png"),
        "flower \U0001f33c.png": encoded(image, "png"),
        "two\nlines.png": encoded(image, "png"),
        "-rf.png": encoded(image, "png"),
        "=cmd()|'.png": encoded(image, "png"),
        "שלום.png": encoded(image, "png"),
        os.fsdecode(b"latin-\xe9.png"): encoded(image, "png"),
        "n" * 251 + ".png": encoded(image, "png"),
    }


def make_folder(root: Path) -> tuple[dict[str, str], set[str]]:
    """Fill `root` with two classes; give the reason (a pattern) of each bad path, and the odd paths that are images."""
    for i, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for j in range(GOOD):
            image = Image.fromarray(pixels(seed=GOOD * i + j) // (1 + i))
            (root / name / f"{j:03d}.jpg").write_bytes(encoded(image, "jpeg"))
    cat, bad = root / "cat", {}
    for name, (data, reason) in bad_contents().items():
        (cat / name).write_bytes(data)
        bad[f"cat/{name}"] = reason
    good = good_contents()
    for name, data in good.items():
        (root / "dog" / name).write_bytes(data)
    deep = root / "dog" / "deep"
    for _ in range(30):
        deep /= "er"
    deep.mkdir(parents=True)
    (deep / "here.png").write_bytes(good["png.jpg"])
    odd = {f"dog/{name}" for name in good} | {str((deep / "here.png").relative_to(root))}
    return bad | _not_files(root, cat, good["png.jpg"]), odd


def _not_files(root: Path, cat: Path, image: bytes) -> dict[str, str]:
    with open(cat / "huge.jpg", "wb") as file:
        file.truncate(2**30)  # takes no room on the disk
    os.mkfifo(cat / "pipe.jpg")
    (cat / "itself.jpg").symlink_to("itself.jpg")
    (cat / "dangling.jpg").symlink_to("nowhere.jpg")
    outside = root.parent / f"{root.name}-outside"
    outside.mkdir()
    (outside / "far.png").write_bytes(image)
    (cat / "far.png").symlink_to(outside / "far.png")
    (cat / "elsewhere").symlink_to(outside)
    (cat / "loop").symlink_to(root)
    (cat / "locked.png").write_bytes(image)
    (cat / "locked.png").chmod(0)
    (cat / "locked").mkdir()
    (cat / "locked").chmod(0)
    (root / "beside.png").write_bytes(image)
    _clutter(root, cat, image)
    return {
        "cat/huge.jpg": "1,024 MiB; 512 are the most",
        "cat/pipe.jpg": "a pipe, socket or device",
        "cat/itself.jpg": "a link that leads to itself",
        "cat/dangling.jpg": "a link that leads nowhere",
        "cat/far.png": "a link out of the folder",
        "cat/elsewhere": "a link to a folder",
        "cat/loop": "a link to a folder",
        "cat/locked.png": "Permission denied",
        "cat/locked": "Permission denied",
        "beside.png": "lies beside the class folders",
    }


def _clutter(root: Path, cat: Path, image: bytes) -> None:
    """What systems and editors leave behind; it is neither a class nor an image, and not worth a word."""
    for place in (root, cat):
        for name in (".DS_Store", "._000.jpg", "Thumbs.db", "desktop.ini", "notes.txt", "README"):
            (place / name).write_bytes(b"\0\0\0\1Bud1")
        for folder in (".ipynb_checkpoints", "__MACOSX", ".git"):
            (place / folder).mkdir()
            (place / folder / "000-checkpoint.png").write_bytes(image)
