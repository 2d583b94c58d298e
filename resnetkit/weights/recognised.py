"""What a foreign checkpoint was found to be."""

from dataclasses import dataclass, field

from torch import Tensor

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.data.preprocess import Preprocessing


@dataclass(frozen=True)
class Recognised:
    """A foreign network as one of ours.

    `tensors` are in our names and layouts. `names` are the variants that fit, the one taken first. `assumed` maps what
    the file cannot tell to the value taken and why; `notes` say what was left out or is worth knowing, a line each.
    `preprocessing` is what the file itself says, `size` the (height, width) that it says where it says no more.
    """

    spec: NetworkSpec
    tensors: dict[str, Tensor]
    ecosystem: str
    names: tuple[str, ...]
    assumed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    preprocessing: Preprocessing | None = None
    size: tuple[int, int] | None = None
