"""resnet inspect"""

from pathlib import Path
from typing import Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, print_json
from resnetkit.errors import ResnetkitError


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|MODEL|CHECKPOINT",
            help="A network's name, a run folder, a model file or another's checkpoint.",
        ),
    ],
    num_classes: Annotated[int | None, typer.Option(min=0, help="Classes of a named network.")] = None,
    img_size: Annotated[int | None, typer.Option(min=1, help="Pixels a side that the costs are for.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show what a network is: its plan, parameters, MACs, activations and, of a model file, where it comes from."""
    import torch

    from resnetkit.architecture.summary import complexity
    from resnetkit.weights.load import build, load

    model = None
    try:
        with torch.device("meta"):
            network = build(target, num_classes)
    except ResnetkitError:
        if not Path(target).exists() and not target.endswith(".safetensors") and not target.startswith("hf:"):
            raise
        model = load(target)
        network = model.network
    if img_size:
        network.image_size = (img_size, img_size)
    facts: dict[str, Any] = (
        {}
        if model is None
        else {
            "task": model.task,
            "classes": model.classes,
            "preprocessing": model.preprocessing.to_dict(),
            "metrics": model.metrics,
            "provenance": model.provenance,
        }
    )
    if json:
        print_json(complexity(network) | facts)
        return
    network.summary()
    if model is not None:
        print(f"\n{model.report}")
        print(f"classes: {', '.join(model.classes)}")
        for name in ("preprocessing", "metrics", "provenance"):
            print(f"{name}:")
            for key, value in facts[name].items():
                if key != "taken_for":  # the report has it
                    print(f"  {key}: {value}")
