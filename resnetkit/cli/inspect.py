"""resnet inspect"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, PreprocessingOption, ProbeOption, describe_probe, print_json
from resnetkit.errors import ResnetkitError

ENDINGS = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".tar", ".keras", ".h5")  # of files of weights

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
    preprocessing: PreprocessingOption = None,
    probe: ProbeOption = None,
    memory: Annotated[bool, typer.Option("--memory", help="What a training step needs of memory, by mode.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step, for --memory [default: 32].")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16, for --memory [default: float32].")] = None,
    json: JsonFlag = False,
) -> None:
    """Show what a network is and what it costs. Of a model file also where it comes from."""
    from resnetkit.architecture.summary import complexity

    if not memory and (batch_size or precision):
        raise ResnetkitError("--batch-size and --precision are for --memory")
    resident = _resident_bytes() if memory else 0
    network, model = _opened(target, num_classes, preprocessing, probe)
    if img_size:
        network.image_size = (img_size, img_size)
    if memory:
        planned = _plan_memory(network, batch_size or 32, precision or "float32", resident)
        print_json(planned) if json else print(_memory_table(planned))
        return
    facts = {} if model is None else _facts(model)
    if json:
        print_json(complexity(network) | facts)
        return
    network.summary()
    if model is not None:
        print(f"\n{model.report}")
        if probe is not None:
            print(describe_probe(model.provenance["taken_for"]["probe"]))
        _print_facts(facts)


def _facts(model: "Model") -> dict[str, Any]:
    found = model.calibration
    fitted = {"temperature": found.temperature, "n": found.n, "data": found.data} if found.n else {}
    return {
        "task": model.task,
        "classes": model.classes,
        "preprocessing": model.preprocessing.to_dict(),
        "metrics": model.metrics,
        "calibration": fitted,
        "provenance": model.provenance,
    }


def _print_facts(facts: dict[str, Any]) -> None:
    print(f"classes: {', '.join(facts['classes'])}")
    for name in ("preprocessing", "metrics", "calibration", "provenance"):
        if facts[name]:
            print(f"{name}:")
        for key, value in facts[name].items():
            if key != "taken_for":  # the report has it
                print(f"  {key}: {value}")


def _opened(
    target: str, num_classes: int | None, preprocessing: str | None, probe: str | None
) -> "tuple[ResNet, Model | None]":
    """The network of a name, which has no model, or of a file."""
    import torch

    from resnetkit.weights.catalogue import by_id
    from resnetkit.weights.load import build, load

    if probe is not None:
        from resnetkit.evaluation.probe import probe as run_probe

        return _with_its_classes(run_probe(target, probe, preprocessing), num_classes)
    if (Path(target) / "command.json").is_file():  # a run may be called as its network is
        return _with_its_classes(load(target, preprocessing), num_classes)
    try:
        with torch.device("meta"):
            network = build(target, num_classes)
    except ResnetkitError:
        of_a_file = Path(target).suffix in ENDINGS or ("/" in target and Path(target).parent.is_dir())
        if not (Path(target).exists() or of_a_file or target.startswith("hf:") or by_id(target)):
            raise
        return _with_its_classes(load(target, preprocessing), num_classes)
    if preprocessing is not None:
        raise ResnetkitError("--preprocessing is for a checkpoint; a network's name has none")
    return network, None


def _with_its_classes(model: "Model", num_classes: int | None) -> "tuple[ResNet, Model]":
    if num_classes is not None:
        raise ResnetkitError("--num-classes is for a network's name; a model has its own")
    return model.network, model


def _resident_bytes() -> int:
    from resnetkit.training.memory import resident_bytes  # loads what training takes

    return resident_bytes()


def _plan_memory(network: Any, batch_size: int, precision: str, resident: int) -> dict[str, Any]:
    """`plan_memory`, and of each mode the memory of the process at least: `resident` bytes without a network, the
    network's, and what a step adds."""
    from resnetkit.architecture.memory_plan import plan_memory

    planned = plan_memory(network, batch_size=batch_size, precision=precision)
    standing = resident + planned["weights"] + planned["gradients"]
    return planned | {"process_at_least": {mode: standing + live for mode, live in planned["live"].items()}}


def _memory_table(planned: dict[str, Any]) -> str:
    from resnetkit.sizes import written_bytes

    height, width = planned["image_size"]
    lines = [
        f"{planned['name']}: a training step on {planned['batch_size']} images of {height}x{width} in "
        f"{planned['precision']}",
        f"beside weights, {written_bytes(planned['weights'])}, gradients, {written_bytes(planned['gradients'])}, and "
        "what the optimizer keeps",
        f"{'mode':<12}{'live':>12}{'process, at least':>20}",
    ]
    for mode, live in planned["live"].items():
        note = "  another network: reversible=True" if mode == "reversible" else ""
        process = written_bytes(planned["process_at_least"][mode])
        lines.append(f"{mode:<12}{written_bytes(live):>12}{process:>20}{note}")
    return "\n".join(lines)
