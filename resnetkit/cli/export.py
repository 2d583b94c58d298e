"""resnet export"""

from pathlib import Path
from typing import Annotated

import typer

from resnetkit.cli.output import JsonFlag, PreprocessingOption, print_json


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL|CHECKPOINT", help="A run folder, model file or another's checkpoint.")
    ],
    to: Annotated[str, typer.Option(help="torchvision, timm, huggingface or keras.")],
    out: Annotated[
        Path | None, typer.Option(help="A new file or folder [default: in the run's exports/, or beside the file].")
    ] = None,
    preprocessing: PreprocessingOption = None,
    json: JsonFlag = False,
) -> None:
    """Write a trained network in another library's format. It is checked to read back the same."""
    from resnetkit.export.export import export as export_model

    found = export_model(source, to=to, out=out, preprocessing=preprocessing)
    if json:
        print_json(found)
        return
    print(f"{found['path']}: {found['network']} for {to}; read back: {found['tensors_equal']} tensors equal")
    print("\n".join(["", *found["use"], "", *found["notes"]]))
