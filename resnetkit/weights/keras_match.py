"""A Keras graph against the network it is taken for, layer by layer: what differs is refused, tensors are collected."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnetkit.architecture import layers
from resnetkit.architecture.convolution import Conv2d
from resnetkit.architecture.resnet import Head, ResNet
from resnetkit.errors import ModelFileRefused
from resnetkit.weights.keras_graph import Graph
from resnetkit.weights.keras_operations import Operation
from resnetkit.weights.keras_tensors import KerasTensors, to_torch
from resnetkit.weights.outline import Part, outline

NORM_TENSORS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
FUNCTIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.SiLU: "silu", nn.GELU: "gelu"}


class Matcher:
    """`tensors` fills with ours as layers are found right; `filled` are Keras layers that lacked one of them."""

    def __init__(self, net: ResNet, source: KerasTensors) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.filled: dict[str, list[str]] = {"bias": [], "scale": [], "offset": []}
        self.momenta: set[float] = set()
        self.notes: list[str] = []
        self._net = net
        self._source = source
        self._left: list[Operation] = []
        self._last: Operation | None = None

    def match(self, graph: Graph, stem: list[Operation]) -> None:
        """Raises ModelFileRefused that names the layer and what of it differs."""
        ours = outline(self._net)
        theirs = graph.blocks
        if len(ours.blocks) != len(theirs):
            raise ModelFileRefused(f"{len(theirs)} blocks in the graph where {len(ours.blocks)} were expected")
        before: list[Part] = ours.stem
        self._last, run = graph.entry, stem
        for own, block in zip(ours.blocks, theirs):
            self._follow([*before, *own.before], run)
            self._follow(own.branch, block.branch)
            self._follow(own.shortcut or [], block.shortcut)
            self._last = block.add
            before, run = own.after, block.after
        self._follow([*before, *ours.head], run)

    def _follow(self, parts: list[Part], operations: list[Operation]) -> None:
        self._left = [op for op in operations if op.kind != "drop"]
        for name, module in parts:
            if isinstance(module, layers.DropPath):
                continue
            if type(module) not in HANDLERS:
                raise ModelFileRefused(f"{name}: Keras has no {type(module).__name__}, so the graph is something else")
            HANDLERS[type(module)](self, name, module)
        if self._left and self._left[0].values.get("function") == "softmax" and len(self._left) == 1 and self._at_head:
            self._left = []
        if self._left:
            left = self._left[0]
            raise left.refuse(f"{left.values.get('function', left.kind)} has no place here in a network of ours")

    @property
    def _at_head(self) -> bool:
        return self._last is not None and self._last.kind == "dense"

    def _take(self, kind: str, what: str) -> Operation:
        if not self._left or self._left[0].kind != kind:
            found = self._left[0] if self._left else self._last
            assert found is not None
            raise found.refuse(
                f"{'stands where' if self._left else 'is not followed by'} {what} {VERBS[bool(self._left)]}"
            )
        self._last = self._left.pop(0)
        return self._last

    def _take_pad(self) -> tuple[int, ...]:
        """The sides of a zero padding that comes next: top, bottom, left, right; none is zeros."""
        if self._left and self._left[0].kind == "pad":
            return tuple(self._take("pad", "").values["sides"])
        return (0, 0, 0, 0)

    def conv(self, name: str, module: nn.Conv2d) -> None:
        sides = self._take_pad()
        op = self._take("conv", "a convolution")
        own = {
            "kernel": module.kernel_size[0],
            "stride": module.stride[0],
            "dilation": module.dilation[0],
            "groups": module.groups,
        }
        self._agree(op, own)
        reach = module.dilation[0] * (module.kernel_size[0] // 2)
        explicit = sides == (reach,) * 4 and op.values["padding"] == "valid"
        implicit = not any(sides) and op.values["padding"] == "same"
        if isinstance(module, layers.SameConv2d) and reach:
            right = implicit
        else:
            right = explicit or (implicit and (module.stride[0] == 1 or not reach))
        if not right:
            wanted = self._net.spec.padding
            raise op.refuse(f"padding {op.values['padding']} after zeros {sides}, where the rest is padded {wanted}")
        self._kernel(op, name, module)

    def _kernel(self, op: Operation, name: str, module: nn.Module) -> None:
        arrays = self._source.of(op.layer)
        self._put(op, f"{name}.weight", to_torch(arrays["kernel"]), module.get_parameter("weight"))
        if getattr(module, "bias", None) is None:
            if "bias" in arrays:
                raise op.refuse("has a bias, which ours has not here")
            return
        own = module.get_parameter("bias")
        if "bias" not in arrays:
            self.filled["bias"].append(op.layer.name)
        bias = arrays.get("bias", np.zeros(own.shape, np.float32))
        self._put(op, f"{name}.bias", torch.from_numpy(bias), own)

    def norm(self, name: str, module: nn.Module) -> None:
        op = self._take("norm", f"a {self._net.spec.norm} norm")
        group = isinstance(module, nn.GroupNorm)
        own: dict[str, Any] = {"type": "group" if group else "batch", "eps": self._net.spec.norm_eps}
        if isinstance(module, nn.GroupNorm):
            own["groups"] = module.num_groups
        self._agree(op, own)
        self.momenta |= {op.values["momentum"]} if "momentum" in op.values else set()
        arrays = self._source.of(op.layer)
        for theirs, ours in list(NORM_TENSORS.items())[: 2 if group else 4]:
            target = module.state_dict()[ours]
            if theirs not in arrays:
                self.filled["scale" if theirs == "gamma" else "offset"].append(op.layer.name)
            value = arrays.get(theirs, np.full(target.shape, theirs == "gamma", np.float32))
            self._put(op, f"{name}.{ours}", torch.from_numpy(value), target)
        if not group:
            self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)

    def activation(self, name: str, module: nn.Module) -> None:
        wanted = FUNCTIONS[type(module)]
        self._agree(self._take("activation", f"the activation {wanted}"), {"function": wanted})

    def lowest_pool(self, name: str, module: nn.MaxPool2d) -> None:
        """Symmetric with minus infinity: zeros after ReLU, or `same` at stride 1 and every second place of that."""
        if module.padding == 0:
            return self._max_pool(3, 2, "valid", (0,) * 4)
        if self._left and self._left[0].kind == "pad":
            return self._max_pool(3, 2, "valid", (1,) * 4)
        self._max_pool(3, 1, "same", (0,) * 4)
        self._max_pool(1, 2, None, (0,) * 4)

    def branch_pool(self, name: str, module: layers.BranchPool2d) -> None:
        self._max_pool(module.side, module.side, "same", (0,) * 4)

    def same_pool(self, name: str, module: nn.Module) -> None:
        self._max_pool(3, 2, "same", (0,) * 4)

    def zeros_pool(self, name: str, module: nn.Module) -> None:
        self._max_pool(3, 2, "valid", (1,) * 4)

    def _max_pool(self, kernel: int, stride: int, padding: str | None, zeros: tuple[int, ...]) -> None:
        sides = self._take_pad()
        op = self._take("max_pool", "a max pool")
        self._agree(op, {"kernel": kernel, "stride": stride} | ({"padding": padding} if padding else {}))
        if sides != zeros:
            raise op.refuse(f"pools after zeros {sides}, where ours has {zeros}")

    def zero_pad(self, name: str, module: layers.ZeroPadShortcut) -> None:
        if module.stride > 1:
            kind = "average_pool" if self._left and self._left[0].kind == "average_pool" else "max_pool"
            op = self._take(kind, "a subsampling pool of kernel 1")
            self._agree(op, {"kernel": 1, "stride": module.stride})
        if module.before + module.after == 0:
            return
        op = self._take("pad", "zeros for the new channels")
        wanted = {"sides": (0, 0, module.before, module.after), "data_format": "channels_first"}
        self._agree(op, wanted)

    def average_pool(self, name: str, module: nn.AvgPool2d) -> None:
        op = self._take("average_pool", "an average pool")
        if module.stride != 2:
            raise op.refuse(f"is an average pool of stride {module.stride}, which is padded otherwise than ours")
        self._agree(op, {"kernel": module.kernel_size, "stride": module.stride, "padding": "same"})

    def squeeze_excite(self, name: str, module: layers.SqueezeExcite) -> None:
        op = self._take("se", "squeeze-excite")
        for part, conv in zip(("reduce", "expand"), op.values["layers"]):
            self._agree(conv, {"kernel": 1, "stride": 1})
            self._kernel(conv, f"{name}.{part}", module.get_submodule(part))

    def channel_attention(self, name: str, module: layers.EfficientChannelAttention) -> None:
        op = self._take("eca", "efficient channel attention")
        (conv,) = op.values["layers"]
        self._agree(conv, {"kernel": module.conv.kernel_size[0], "stride": 1, "padding": "same"})
        self._kernel(conv, f"{name}.conv", module.conv)

    def head(self, name: str, module: Head) -> None:
        if not self._left and self._net.spec.num_classes == 0:
            self.notes.append("the file ends before the average pool; ours ends with it")
            return
        if self._left and self._left[0].kind == "average_pool":
            self._whole_map(self._take("average_pool", ""))
        else:
            self._take("global_pool", "the global average pool")
        if self._left and self._left[0].kind == "flatten":
            self._take("flatten", "")

    def _whole_map(self, op: Operation) -> None:
        """An average pool stands for the global one where it covers the last map."""
        height, width = self._net.image_size
        with torch.device("meta"):
            last = self._net.features(torch.empty(1, self._net.spec.in_channels, height, width))[-1]
        if set(last.shape[2:]) != {op.values["kernel"]}:
            sides = "x".join(map(str, last.shape[2:]))
            raise op.refuse(f"pools {op.values['kernel']} pixels of a map of {sides}; ours pool all of it")

    def classifier(self, name: str, module: nn.Linear) -> None:
        self._kernel(self._take("dense", "the classifier"), name, module)

    def _agree(self, op: Operation, wanted: dict[str, Any]) -> None:
        for name, value in wanted.items():
            if op.values[name] != value:
                raise op.refuse(f"{name} {op.values[name]!r}, where the network it is taken for has {value!r}")

    def _put(self, op: Operation, name: str, value: Tensor, own: Tensor) -> None:
        if value.shape != own.shape:
            raise op.refuse(f"{name} would be {tuple(value.shape)}, where ours is {tuple(own.shape)}")
        self.tensors[name] = value.float()


VERBS = {True: "should", False: "as it should be"}
Handler = Callable[[Matcher, str, Any], None]
HANDLERS: dict[type[nn.Module], Handler] = {
    Conv2d: Matcher.conv,
    nn.Conv2d: Matcher.conv,
    layers.SameConv2d: Matcher.conv,
    nn.BatchNorm2d: Matcher.norm,
    layers.FrozenBatchNorm2d: Matcher.norm,
    nn.GroupNorm: Matcher.norm,
    nn.ReLU: Matcher.activation,
    nn.SiLU: Matcher.activation,
    nn.GELU: Matcher.activation,
    nn.MaxPool2d: Matcher.lowest_pool,
    layers.BranchPool2d: Matcher.branch_pool,
    layers.SameMaxPool2d: Matcher.same_pool,
    nn.Sequential: Matcher.zeros_pool,
    layers.ZeroPadShortcut: Matcher.zero_pad,
    nn.AvgPool2d: Matcher.average_pool,
    layers.SqueezeExcite: Matcher.squeeze_excite,
    layers.EfficientChannelAttention: Matcher.channel_attention,
    Head: Matcher.head,
    nn.Linear: Matcher.classifier,
}
