"""What a format can hold: values of NetworkSpec, and refusal of the others."""

from math import prod
from typing import Any

from torch import Tensor

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import STEM_STRIDE, NetworkSpec
from resnetkit.errors import ResnetkitError
from resnetkit.weights.rename import Table

Limits = dict[str, tuple[Any, ...]]

# Of all three libraries; frozen norms give the same numbers as theirs, and could be trained there.
COMMON: Limits = {
    "norm": ("batch", "frozen"),
    "norm_eps": (1e-5,),
    "conv_bias": (False,),
    "padding": ("symmetric",),
    "pool_padding": ("lowest",),
    "stride_in_last_block": (False,),
    "stride_by": ("conv",),
    "reversible": (False,),
}


def require(spec: NetworkSpec, library: str, limits: Limits) -> None:
    """Raise ResnetkitError that names the first feature that the library's networks do not have."""
    for name, allowed in (COMMON | limits).items():
        if getattr(spec, name) not in allowed:
            refuse(spec, library, name, f"its networks have {' or '.join(map(str, allowed))}")


def refuse(spec: NetworkSpec, library: str, feature: str, has: str) -> None:
    raise ResnetkitError(f"{library} cannot hold {spec.name}: {feature}={getattr(spec, feature)!r}; {has}")


def is_dilated(spec: NetworkSpec) -> bool:
    return spec.output_stride not in (None, STEM_STRIDE[spec.stem] * prod(spec.strides))


def in_their_names(tables: tuple[Table, ...], network: ResNet) -> dict[str, Tensor]:
    """The state dict as the table that fits the network names and shapes it."""
    table = next(table for table in tables if table.fits(network.spec))
    tensors = {}
    for name, tensor in network.state_dict().items():
        module, _, kind = name.rpartition(".")
        theirs = table.to_theirs(module)
        assert theirs, f"{table.library} has no name for {module}"
        tensors[f"{theirs}.{kind}"] = tensor.detach().cpu().contiguous()
        if table.pointwise and name == "head.classifier.weight":
            tensors[f"{theirs}.{kind}"] = tensors[f"{theirs}.{kind}"][:, :, None, None]
    return tensors
