"""The shape of a residual network in a graph of operations: a stem, blocks of two paths that meet in an Add, a head."""

from collections import defaultdict
from dataclasses import dataclass

from resnetkit.errors import ModelFileRefused
from resnetkit.weights.keras_operations import Operation

ATTENTION = {  # what stands between a map and the gates that multiply it
    "se": ["global_pool", "conv", "activation", "conv", "activation"],
    "eca": ["global_pool", "reshape", "conv1d", "activation", "reshape"],
}


@dataclass(frozen=True)
class Block:
    """The two paths from one value to the Add where they meet; `after` stands between it and the next block."""

    branch: list[Operation]
    shortcut: list[Operation]
    after: list[Operation]
    add: Operation


@dataclass(frozen=True)
class Graph:
    """`stem` holds everything before the first block, the input apart; the last block's `after` ends the network."""

    entry: Operation
    stem: list[Operation]
    blocks: list[Block]


def graph_of(operations: list[Operation]) -> Graph:
    """Raises ModelFileRefused, naming the layer where the graph stops being that of a residual network."""
    operations = _fold_attention(operations)
    entries = [op for op in operations if op.kind == "input"]
    if len(entries) != 1:
        raise ModelFileRefused(f"the model has {len(entries)} inputs; ours have one")
    readers: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        for name in operation.inputs:
            readers[name].append(operation)
    stem, value = _chain(entries[0], readers)
    blocks = []
    while readers[value.name]:
        paths, add = _paths(value, readers)
        after, value = _chain(add, readers)
        paths.sort(key=lambda path: [op.kind for op in path].count("conv"))
        blocks.append(Block(paths[1], paths[0], after, add))
    if value is not operations[-1]:
        raise value.refuse("the graph ends here, and this is not the model's output")
    return Graph(entries[0], stem, blocks)


def _chain(start: Operation, readers: dict[str, list[Operation]]) -> tuple[list[Operation], Operation]:
    """The operations after `start` while each feeds one other that is no Add, and the last of them."""
    found = []
    while len(following := readers[start.name]) == 1 and following[0].kind not in ("add", "multiply"):
        start = following[0]
        found.append(start)
    return found, start


def _paths(fork: Operation, readers: dict[str, list[Operation]]) -> tuple[list[list[Operation]], Operation]:
    paths, meet = [], {}
    for first in readers[fork.name]:
        path: list[Operation] = []
        last = fork
        if first.kind != "add":
            rest, last = _chain(first, readers)
            path = [first, *rest]
        ends = readers[last.name] if path else [first]
        if len(ends) != 1 or ends[0].kind != "add":
            raise last.refuse(f"feeds {len(ends)} layers within a block; ours have one branch and one shortcut")
        paths.append(path)
        meet[ends[0].name] = ends[0]
    if len(paths) != 2 or len(meet) != 1:
        raise fork.refuse(f"feeds {len(paths)} layers; a block has one branch and one shortcut, which meet in an Add")
    add = next(iter(meet.values()))
    if len(add.inputs) != 2 or not any(paths):
        raise add.refuse("adds other than a branch to a shortcut")
    return paths, add


def _fold_attention(operations: list[Operation]) -> list[Operation]:
    """Each Multiply of a map by gates made from it as one operation that holds the layers with tensors."""
    by_name = {op.name: op for op in operations}
    folded: dict[str, Operation] = {}
    gone: set[str] = set()
    for multiply in (op for op in operations if op.kind == "multiply"):
        source, inside = _gates(multiply, by_name)
        kinds = [op.kind for op in inside]
        kind = next((kind for kind, pattern in ATTENTION.items() if kinds == pattern), None)
        if kind is None:
            raise multiply.refuse(
                f"multiplies by {' '.join(kinds) or 'itself'}; ours have squeeze-excite and ECA gates"
            )
        functions = [op.values["function"] for op in inside if op.kind == "activation"]
        if functions != ["relu", "sigmoid"][-len(functions) :]:
            raise multiply.refuse(f"its gates come from {' and '.join(functions)}; ours from relu and sigmoid")
        layers = [op for op in inside if op.kind in ("conv", "conv1d")]
        folded[multiply.name] = Operation(multiply.name, kind, (source,), multiply.layer, {"layers": layers})
        gone |= {op.name for op in inside}
    return [folded.get(op.name, op) for op in operations if op.name not in gone]


def _gates(multiply: Operation, by_name: dict[str, Operation]) -> tuple[str, list[Operation]]:
    """The map that is multiplied, and the operations from it to the gates."""
    for gates, source in (multiply.inputs[:2], multiply.inputs[1::-1]):
        inside: list[Operation] = []
        while gates != source and len(inside) < 6 and len(by_name[gates].inputs) == 1:
            inside.insert(0, by_name[gates])
            gates = by_name[gates].inputs[0]
        if gates == source:
            return source, inside
    raise multiply.refuse("multiplies two maps; ours have gates made from the map itself")
