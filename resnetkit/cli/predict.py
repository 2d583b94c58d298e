"""resnet predict"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, PreprocessingOption, print_json
from resnetkit.errors import Interrupted, ResnetkitError, TooManyBadImages


def predict(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL|CHECKPOINT", help="A run folder, model file or checkpoint.")
    ],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, patterns.")],
    format: Annotated[
        str | None, typer.Option(help="table, jsonl, csv or parquet [default: by the name of --out, else table].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new file for the answers; interrupted, the same command goes on with it.")
    ] = None,
    sort_into: Annotated[
        Path | None, typer.Option(help="Copy the images into a folder a class; nothing is moved or overwritten.")
    ] = None,
    certainty: Annotated[
        float | None,
        typer.Option(help="Say `none of these` unless such answers are right this often, for example 0.95."),
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Give the set of classes that holds the truth this often, for example 0.9.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Likeliest classes that an answer lists [default: 5, in a table 3].")
    ] = None,
    preprocessing: PreprocessingOption = None,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Share of unreadable images tolerated.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Threads that decode photos; 0: the main one alone [default: one a core, at most 4]."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    json: JsonFlag = False,
) -> None:
    """Label images. Every readable image is answered, in order; unreadable ones are named."""
    from resnetkit.data.progress import watched
    from resnetkit.inference.predictor import Predictor, find_images
    from resnetkit.inference.results import answer_to_file, find_format
    from resnetkit.inference.sorting import Sorter
    from resnetkit.training.allocator import keep_freed_memory
    from resnetkit.weights.load import load

    keep_freed_memory()
    written = find_format(_lines_of_json(format) if json and out is None else format, out)
    paths = find_images(images)
    model = load(source, preprocessing)
    if "taken_for" in model.provenance:
        print(model.report, file=sys.stderr)
    predictor = Predictor(
        model,
        device=device,
        precision=precision,
        top=top or (3 if written == "table" else 5),
        batch_size=batch_size,
        workers=workers,
        coverage=coverage,
        certainty=certainty,
    )
    sorter = Sorter(sort_into, images, predictor.model.task) if sort_into is not None else None
    if out is None:
        answers = _printed(predictor.predict(paths), written)
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        answers = watched(answer_to_file(predictor, paths, out, written), len(paths), "answering")
    bad = answered = 0
    try:
        for answer in answers:
            answered += 1
            if "error" in answer:
                bad += 1
                print(f"resnet: {answer['path']}: {answer['error']}", file=sys.stderr)
            elif sorter is not None:
                sorter.copy(Path(answer["path"]), answer["label"])
    except KeyboardInterrupt:
        if out is None:
            raise
        raise Interrupted(f"stopped after {answered} of {len(paths)} images; the same command goes on") from None
    if out is not None:
        summary = {"out": str(out), "n": len(paths), "bad": bad}
        print_json(summary) if json else print(f"{len(paths) - bad} of {len(paths)} images answered: {out}")
    if bad > max_bad * len(paths):
        raise TooManyBadImages(
            f"{bad} of {len(paths)} images cannot be read (--max-bad {max_bad:g}); the others are answered"
        )


def _lines_of_json(format: str | None) -> str:
    if format not in (None, "jsonl"):
        raise ResnetkitError(f"--json prints JSON, not {format}; leave out one of the two")
    return "jsonl"


def _printed(answers: Iterator[dict[str, Any]], format: str) -> Iterator[dict[str, Any]]:
    """The same answers, each printed on its way."""
    from resnetkit.inference.results import header, line

    if first := header(format):
        print(first)
    for answer in answers:
        if "error" not in answer:
            print(line(answer, format), flush=True)
        yield answer
