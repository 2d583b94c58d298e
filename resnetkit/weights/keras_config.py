"""A Keras config, of Keras 2 or 3, as a flat list of layers; models inside the model are unfolded."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from resnetkit.errors import ModelFileRefused
from resnetkit.weights.keras_file import snake

MODELS = ("Functional", "Model", "Sequential")
Json = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """`path` leads to the layer by names through the models that hold it, `numbered` by Keras 3's numbers for classes
    (None where only names count); `inputs` are the names of the layers it reads."""

    name: str
    kind: str
    config: Json
    inputs: tuple[str, ...]
    path: tuple[str, ...]
    numbered: tuple[str, ...] | None


def layers_of(config: Json) -> list[Layer]:
    """The layers in order, of which the last gives the model's output. Raises ModelFileRefused."""
    kind = config.get("class_name")
    if kind not in MODELS:
        raise ModelFileRefused(
            f"a {kind} is a model written in Python; only functional and sequential models describe themselves"
        )
    found: list[Layer] = []
    try:
        output = _unfold(config, (), (), None, found)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelFileRefused(f"the config is damaged: {type(error).__name__} {error}") from error
    if len({layer.name for layer in found}) < len(found):
        raise ModelFileRefused("the config is damaged: two layers have one name")
    return sorted(found, key=lambda layer: layer.name == output)


def _unfold(model: Json, path: tuple[str, ...], numbered: tuple[str, ...], fed: str | None, found: list[Layer]) -> str:
    """Append the layers of a model that reads the value of layer `fed`; the name of the layer that gives its output."""
    values: dict[str, str] = {}  # by a name in this model, the flat name of the layer that gives its value
    counts: Counter[str] = Counter()
    name = ""
    for name, record, sources in _records(model):
        kind = str(record["class_name"])
        if not isinstance(record["config"], dict) and kind not in MODELS:
            raise TypeError(name)
        inputs = tuple(values[source] for source in sources)
        number = snake(kind) + (f"_{counts[kind]}" if counts[kind] else "")
        counts[kind] += 1
        here, there = (*path, name), (*numbered, number)
        if kind == "InputLayer" and fed is not None:
            values[name] = fed
        elif kind in MODELS:
            (source,) = inputs or (None,)
            values[name] = _unfold(record, here, there, source, found)
        else:
            layer = Layer("/".join(here), kind, record["config"], inputs, here, there)
            found.append(layer)
            values[name] = layer.name
    if model["class_name"] != "Sequential":
        name = _output(model["config"]["output_layers"])
    return values[name]


def _records(model: Json) -> Iterator[tuple[str, Json, list[str]]]:
    """The layers of a model as it lists them: name, record and the names of the layers it reads."""
    config = model["config"]
    records = config["layers"] if isinstance(config, dict) else config
    if model["class_name"] != "Sequential":
        for record in records:
            yield str(record["name"]), record, _inbound(record)
        return
    before: list[str] = []
    if records[0]["class_name"] != "InputLayer":
        shape = records[0]["config"].get("batch_input_shape") or config.get("build_input_shape")
        yield "input", {"class_name": "InputLayer", "config": {"batch_shape": shape}}, []
        before = ["input"]
    for record in records:
        name = str(record.get("name") or record["config"]["name"])
        yield name, record, before
        before = [name]


def _inbound(record: Json) -> list[str]:
    calls = record.get("inbound_nodes") or []
    if len(calls) > 1:
        raise ModelFileRefused(f"layer {record['name']} is used {len(calls)} times; ours share no layers")
    sources: list[str] = []
    for call in calls:
        if isinstance(call, dict):  # Keras 3
            sources += _histories([call["args"], call["kwargs"]])
        else:
            sources += [str(source[0]) for source in (call if isinstance(call[0], list) else [call])]
    return sources


def _histories(arguments: Any) -> list[str]:
    """The layers whose values stand among the arguments of a call."""
    if isinstance(arguments, list):
        return [name for argument in arguments for name in _histories(argument)]
    if isinstance(arguments, dict):
        if arguments.get("class_name") == "__keras_tensor__":
            return [str(arguments["config"]["keras_history"][0])]
        return _histories(list(arguments.values()))
    return []


def _output(outputs: list[Any]) -> str:
    one = outputs if isinstance(outputs[0], str) else outputs[0]
    if len(outputs) > 1 and one is not outputs:
        raise ModelFileRefused(f"the model has {len(outputs)} outputs; ours give logits alone")
    return str(one[0])
