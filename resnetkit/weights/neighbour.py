"""Whether the config.json beside a checkpoint is that of the network in it."""

from typing import Any

from resnetkit.weights.checkpoint import CONFIG, INDEX, PICKLED, SINGLE, Checkpoint
from resnetkit.weights.recognise import libraries

OF_CONFIG = (SINGLE, INDEX, PICKLED)  # the files that a config.json goes with


def library_of(config: dict[str, Any]) -> str:
    """The library that writes configs with such keys; "" for none that is read."""
    if "model_type" in config:
        return "transformers"
    return "timm" if "architecture" in config else ""


def strange_config(checkpoint: Checkpoint) -> list[str]:
    """Why the config is another's and is left out, a line; none where it is the checkpoint's own, or not there."""
    path, config = checkpoint.path, checkpoint.config
    library = library_of(config)
    if not config:
        return []
    if not library:
        return [f"left out: {CONFIG} beside it, which is neither of timm nor of transformers"]
    if path.is_dir() or path.name in OF_CONFIG:
        return []
    if whose := next((name for name in OF_CONFIG if (path.parent / name).exists()), None):
        return [f"left out: {CONFIG} beside it, which goes with {whose}"]
    theirs = libraries(checkpoint.tensors)
    if library not in theirs:
        return [f"left out: {CONFIG} beside it, of {library}, where its names are those of {' or '.join(theirs)}"]
    return []
