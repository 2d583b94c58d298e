"""A picture of what the network will see: framed training images, a row a class."""

from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from resnetkit.atomic import write_atomically
from resnetkit.data.datasets import Part
from resnetkit.data.labels import indicators
from resnetkit.data.preprocess import Preprocessing, for_people

COLUMNS, TILE, GAP = 10, 96, 4  # pixels
MARGIN = 180  # pixels, for the name of the class
ROWS = 100  # more classes make no picture that anyone looks at


def draw_contact_sheet(part: Part, classes: list[str], preprocessing: Preprocessing, path: Path) -> None:
    """Ten images of each class, spread over all of it, as PNG."""
    shown = classes[:ROWS]
    step = TILE + GAP
    foot = step // 4 if len(classes) > ROWS else 0
    sheet = Image.new("RGB", (MARGIN + COLUMNS * step, len(shown) * step + GAP + foot), "white")
    draw = ImageDraw.Draw(sheet)
    # Matplotlib's font has letters of more scripts than Pillow's own.
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 13)
    for row, name in enumerate(shown):
        top = GAP + row * step
        draw.text((GAP, top + TILE // 2), _fitting(name, font), "black", font, "lm")
        for column, index in enumerate(_spread(_members(part, row))):
            sheet.paste(_tile(part.images[index], preprocessing), (MARGIN + column * step, top))
    if foot:
        draw.text((GAP, len(shown) * step + GAP), f"and {len(classes) - ROWS:,} more classes", "black", font)
    write_atomically(path, lambda partial: sheet.save(partial, "PNG"))


def _members(part: Part, label: int) -> list[int]:
    return indicators(part.labels, label + 1)[:, label].nonzero()[:, 0].tolist()


def _spread(indices: list[int]) -> list[int]:
    if len(indices) <= COLUMNS:
        return indices
    return [indices[i * len(indices) // COLUMNS] for i in range(COLUMNS)]


def _tile(image: object, preprocessing: Preprocessing) -> Image.Image:
    pixels = preprocessing.frame(image if isinstance(image, Tensor) else preprocessing.decode(image))
    picture = Image.fromarray(for_people(pixels).permute(1, 2, 0).to(torch.uint8).contiguous().numpy())
    # Small images keep their pixels visible.
    way = Image.Resampling.NEAREST if max(picture.size) < TILE else Image.Resampling.LANCZOS
    scale = TILE / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), way)


def _fitting(name: str, font: ImageFont.FreeTypeFont) -> str:
    short = name
    while font.getlength(short) > MARGIN - 2 * GAP:
        short = short[:-2] + "…"
    return short
