"""Where in a checkpoint the state dict lies: under one of many names, with optimizers and counters beside it."""

from typing import Any

from resnetkit.weights.pickle_scan import Declared, Refusal
from resnetkit.weights.untrusted import shown

# Averaged weights come first where the name says that they are: published accuracies are theirs, and timm's
# load_state_dict takes them first too. Self-distillation (DINO) averages the student into its teacher.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights", "module")
DISTILLED = ("teacher", "student", "backbone", "encoder")
WRAPPINGS = (*AVERAGED, *PLAIN, *DISTILLED)
LEVELS = 2


def chosen(tree: Any) -> tuple[list[str], dict[str, Any], list[str]]:
    """The keys that lead to the state dict, the dict itself, and what was left out, a line each. Raises Refusal."""
    if not isinstance(tree, dict):
        raise Refusal("it holds no dict of tensors; save a state_dict with torch.save")
    keys = path_to_state(tree, LEVELS)
    if keys is None:
        raise Refusal("it holds no state dict under a known name; save the state_dict alone")
    found, notes = tree, []
    for key in keys:
        notes += beside(found, key)
        found = found[key]
    strange = [name for name in found if not isinstance(name, str)]
    if strange:
        raise Refusal(f"its state dict has the key {shown(strange[0])}, which is no name; save a state_dict")
    notes += [f"left out {shown(name)}: no tensor" for name, value in found.items() if not isinstance(value, Declared)]
    return keys, found, notes


def path_to_state(tree: dict[Any, Any], levels: int) -> list[str] | None:
    """Keys from a dict to the state dict in it, at most `levels` of them."""
    for name in WRAPPINGS if levels else ():
        if isinstance(tree.get(name), dict):
            inner = path_to_state(tree[name], levels - 1)
            if inner is not None:
                return [name, *inner]
    return [] if any(isinstance(value, Declared) for value in tree.values()) else None


def beside(tree: dict[Any, Any], taken: str) -> list[str]:
    """Notes on what lies beside the dict that was taken."""
    others = [name for name in tree if name in WRAPPINGS and name != taken and isinstance(tree[name], dict)]
    rest = [name for name in tree if name != taken and name not in others]
    notes = [f"took {taken!r}, the averaged weights, and not {other!r}" for other in others if taken in AVERAGED]
    notes += [f"took {taken!r} and not {other!r}" for other in others if taken not in AVERAGED]
    if rest:
        more = f" and {len(rest) - 10} more" if len(rest) > 10 else ""
        notes.append(f"left out beside {taken!r}: {', '.join(shown(name)[1:-1] for name in rest[:10])}{more}")
    return notes
