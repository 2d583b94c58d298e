"""resnet predict"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from resnetkit.cli.output import JsonFlag, print_json
from resnetkit.errors import TooManyBadImages


def predict(
    source: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model file.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, patterns.")],
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Share of unreadable images tolerated.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    json: JsonFlag = False,
) -> None:
    """Label images. Every readable image is answered, in order; unreadable ones are named."""
    from resnetkit.inference.predictor import Predictor, find_images

    paths = find_images(images)
    bad = 0
    for answer in Predictor(source, device=device, precision=precision).predict(paths):
        if "error" in answer:
            bad += 1
            print(f"resnet: {answer['path']}: {answer['error']}", file=sys.stderr)
        elif json:
            print_json(answer)
        else:
            others = ", ".join(f"{label} {probability:.1%}" for label, probability in answer["top"][1:3])
            print(
                f"{answer['path']}: {answer['label']} {answer['probability']:.1%}" + (f" ({others})" if others else "")
            )
    if bad > max_bad * len(paths):
        raise TooManyBadImages(
            f"{bad} of {len(paths)} images cannot be read (--max-bad {max_bad:g}); the others are answered"
        )
