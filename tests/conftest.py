"""What the tests share: real data where it lies beside the project, and small runs."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and published checkpoints; they are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder with CIFAR-10 and published checkpoints is not beside the repository")
    return SHARED


@torch.no_grad()
def randomise(net: nn.Module) -> nn.Module:
    """Norms as after training: scales, offsets and statistics that a mistake of order or epsilon would show in."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(1e-4, 2.0)
    return net


@torch.no_grad()
def randomise_near_epsilon(net: nn.Module) -> nn.Module:
    """`randomise`, with every fourth variance about as large as epsilon and its scale so small that the map is not."""
    for module in randomise(net).modules():
        if isinstance(module, nn.BatchNorm2d):
            small = module.running_var[::4].uniform_(2e-6, 5e-5)
            module.weight[::4] *= (small + 1e-5).sqrt()
            module.running_mean[::4] *= (small + 1e-5).sqrt()
    return net


class LargestTensor(TorchDispatchMode):
    """`bytes` is the memory of the largest tensor that was made within."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        sizes = (leaf.untyped_storage().nbytes() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor))
        self.bytes = max(self.bytes, *sizes, 0)
        return made


@pytest.fixture(scope="session")
def keras():
    """The real Keras on its torch back end; importing it takes seconds."""
    os.environ["KERAS_BACKEND"] = "torch"
    return pytest.importorskip("keras")


@pytest.fixture
def compilations(monkeypatch):
    """`torch.compile` as far as forward and backward graphs, which takes no compiler; the graphs it was asked for."""
    from torch._dynamo.backends.debugging import aot_eager  # seconds, which few tests need

    graphs = []

    def traced(graph, examples):
        graphs.append(graph)
        return aot_eager(graph, examples)

    torch._dynamo.reset()
    limit = torch._dynamo.config.recompile_limit
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced))
    yield graphs
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()
