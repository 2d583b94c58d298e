"""resnet convert"""

from pathlib import Path
from typing import Annotated

import typer

from resnetkit.cli.output import JsonFlag, PreprocessingOption, ProbeOption, describe_probe, print_json
from resnetkit.errors import ResnetkitError


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Another library's checkpoint, or a Hugging Face folder.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.safetensors", help="The model file to write.")],
    preprocessing: PreprocessingOption = None,
    probe: ProbeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Take weights that are not finite.")] = False,
    json: JsonFlag = False,
) -> None:
    """Make a model file of anyone's weights. What they were taken for is told."""
    from resnetkit.weights.load import load

    if model.suffix != ".safetensors":
        raise ResnetkitError(f"{model}: a model file ends in .safetensors; name it so")
    if model.exists():
        raise ResnetkitError(f"{model} is there already and would be overwritten; choose another name")
    if probe is None:
        converted = load(checkpoint, preprocessing, force=force)
    else:
        from resnetkit.evaluation.probe import probe as probe_images

        converted = probe_images(checkpoint, probe, preprocessing, force=force)
    converted.save(model)
    if json:
        print_json({"model": str(model)} | converted.provenance)
    else:
        print(converted.report)
        if probe is not None:
            print(describe_probe(converted.provenance["taken_for"]["probe"]))
        print(f"written: {model}")
