"""Fused networks against the folded ones they are made of: on a GPU by cuDNN, elsewhere by what its kernels mean."""

import pytest
import torch
import torch.nn.functional as F

import resnetkit as rk
from resnetkit.architecture.folding import folded
from resnetkit.architecture.fusing import FusedBlock, FusedConv, can_fuse, fused
from tests.conftest import randomise

NVIDIA = torch.cuda.is_available() and can_fuse(torch.device("cuda"), torch.bfloat16)
NETWORKS = [  # name, choices, convolutions that are fused, blocks among them
    ("resnet18", {}, 17, 8),
    ("resnet50", {}, 49, 16),
    ("resnet50d", {"attention": "se"}, 35, 0),
    ("resnext50_32x4d", {}, 33, 16),
    ("resnet20_cifar", {}, 19, 9),
    ("preact_resnet20_cifar", {}, 9, 0),
    ("plain20_cifar", {}, 10, 0),
    ("resnet18", {"padding": "same"}, 13, 8),
    ("resnet18", {"norm": "group"}, 0, 0),
    ("resnet18", {"activation": "silu"}, 0, 0),
    ("resnet18", {"drop_path_rate": 0.5}, 17, 8),
    ("resnet20_cifar", {"reversible": True}, 10, 0),
]


@pytest.fixture
def kernels(monkeypatch):
    def relu(x, weight, bias, stride, padding, dilation, groups):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    def add_relu(x, weight, other, share, bias, *geometry):
        return (F.conv2d(x, weight, bias, *geometry) + share * other).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)


@torch.inference_mode()
def compared(name, choices, device, precision, fuse=fused):
    """Answers of a folded network and of the same fused, and the fused; the same network and images each time."""
    torch.manual_seed(0)
    net = folded(randomise(rk.build(name, **choices)).eval()).place(device)
    x = torch.randn(3, 3, 64, 64).to(device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        wanted = net(x)
        net = fuse(net, precision)
        return wanted, net(x), net


@pytest.mark.parametrize(("name", "choices", "convolutions", "blocks"), NETWORKS)
def test_a_fused_network_gives_the_same(kernels, name, choices, convolutions, blocks):
    wanted, got, net = compared(name, choices, "cpu", torch.float32)
    assert sum(isinstance(module, FusedConv) for module in net.modules()) == convolutions
    assert sum(isinstance(module, FusedBlock) for module in net.modules()) == blocks
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.skipif(not NVIDIA, reason="cuDNN fuses on NVIDIA's GPUs")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "choices", "_convolutions", "_blocks"), NETWORKS)
def test_a_gpu_fuses_it_right(name, choices, _convolutions, _blocks, precision):
    """As near to the processor's answers in float32 as the kernels are one by one: convolutions in float32 are products
    of TF32 on a GPU, and random norms let some networks make much of a rounding."""
    exact, _, _ = compared(name, choices, "cpu", torch.float32, fuse=lambda net, precision: net)
    apart, got, _ = compared(name, choices, "cuda", getattr(torch, precision))
    errors = [float((answers.float().cpu() - exact).norm() / exact.norm()) for answers in (got, apart)]
    assert errors[0] <= 2 * errors[1] + 1e-4
