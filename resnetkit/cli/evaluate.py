"""resnet evaluate"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from resnetkit.cli.output import (
    JsonFlag,
    PreprocessingOption,
    WorkersOption,
    describe_comparison,
    describe_evaluation,
    print_json,
)
from resnetkit.errors import ResnetkitError


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|MODEL|CHECKPOINT...", help="A run folder, model file or checkpoint; two runs are compared."
        ),
    ],
    data: Annotated[str | None, typer.Option(help="Labelled images [default: what the run was trained on].")] = None,
    split: Annotated[str | None, typer.Option(help="Which part of them [default: test, else val].")] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for tables, plots and every answer.")] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            help="Average each image and its mirror image (not where it was trained without), small ones moved too: "
            "2 to 6 times as long.",
        ),
    ] = False,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Measure under 15 corruptions at 5 severities, too: 75 times as long.")
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Fit temperature and thresholds on these other images first; the model file keeps them.",
        ),
    ] = None,
    preprocessing: PreprocessingOption = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    workers: WorkersOption = None,
    max_bad: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of unreadable images of DATA left out; a run's own must all be there."),
    ] = 0.0,
    json: JsonFlag = False,
) -> None:
    """Measure a trained network on labelled images, or compare two."""
    from resnetkit.evaluation.compare import compare
    from resnetkit.evaluation.evaluate import evaluate as evaluate_model
    from resnetkit.training.allocator import keep_freed_memory

    keep_freed_memory()
    options: dict[str, Any] = {"split": split, "tta": tta, "precision": precision, "device": device}
    options |= {"batch_size": batch_size, "workers": workers, "max_bad": max_bad}
    for source in sources[1:]:
        _require_no_images(source)
    if len(sources) == 1:
        figures = evaluate_model(
            sources[0],
            data,
            preprocessing=preprocessing,
            calibrate=calibrate,
            corruptions=corruptions,
            out=out,
            **options,
        )
        text = describe_evaluation(figures)
        if "taken_for" in figures:
            from resnetkit.weights.foreign import describe

            print(describe(figures["taken_for"]), file=sys.stderr)
    elif len(sources) == 2 and out is None and calibrate is None and not corruptions:
        figures = compare(sources[0], sources[1], data, preprocessing=preprocessing, **options)
        text = describe_comparison(figures, str(sources[0]), str(sources[1]))
    else:
        raise ResnetkitError(
            "give one run or model, or two to compare; --out, --calibrate and --corruptions are for one"
        )
    if json:
        print_json(figures)
    else:
        print(text)


def _require_no_images(source: Path) -> None:
    """Raise ResnetkitError for images where `resnet predict` takes them."""
    from resnetkit.data.image_files import is_image

    cure = f"{source}: images, and no run or model; to measure on labelled images name their folder with --data"
    if source.is_file() and is_image(source):
        raise ResnetkitError(cure)
    if not source.is_dir() or {".safetensors", ".bin", ".json"} & {path.suffix for path in source.iterdir()}:
        return  # a run or a checkpoint, whole or not
    if any(is_image(path) for path in source.rglob("*")):
        raise ResnetkitError(cure)
