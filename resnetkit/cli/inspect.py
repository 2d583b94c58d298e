"""resnet inspect"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, ProbeOption, describe_probe, print_json
from resnetkit.errors import ResnetkitError

if TYPE_CHECKING:
    from resnetkit.architecture.resnet import ResNet
    from resnetkit.weights.files import Model


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
    probe: ProbeOption = None,
    json: JsonFlag = False,
) -> None:
    """Show what a network is: its plan, parameters, MACs, activations and, of a model file, where it comes from."""
    from resnetkit.architecture.summary import complexity

    network, model = _opened(target, num_classes, probe)
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
        if probe is not None:
            print(describe_probe(model.provenance["taken_for"]["probe"]))
        print(f"classes: {', '.join(model.classes)}")
        for name in ("preprocessing", "metrics", "provenance"):
            print(f"{name}:")
            for key, value in facts[name].items():
                if key != "taken_for":  # the report has it
                    print(f"  {key}: {value}")


def _opened(target: str, num_classes: int | None, probe: str | None) -> "tuple[ResNet, Model | None]":
    """The network of a name, which has no model, or of a file."""
    import torch

    from resnetkit.weights.load import build, load

    if probe is not None:
        from resnetkit.evaluation.probe import probe as run_probe

        model = run_probe(target, probe)
        return model.network, model
    try:
        with torch.device("meta"):
            return build(target, num_classes), None
    except ResnetkitError:
        if not Path(target).exists() and not target.endswith(".safetensors") and not target.startswith("hf:"):
            raise
    model = load(target)
    return model.network, model
