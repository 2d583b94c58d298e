"""Optimizers without guards against tracing: PyTorch's numbers and state, and its compiler is not imported."""

import copy
import subprocess
import sys

import pytest
import torch

from resnetkit.training import untraced

SETTINGS = {"SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True}, "AdamW": {"lr": 0.1, "weight_decay": 0.1}}

FRESH = """
import sys
import torch, resnetkit as rk
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.recipe import make_recipe

net = rk.build("resnet8_cifar", num_classes=3)
for name in ("sgd", "adamw", "lamb", "muon"):
    recipe = make_recipe({"model": "resnet8_cifar", "epochs": 1, "lr": 0.1, "optimizer": name})
    optimizer = make_optimizer(net, recipe)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
with torch.device("meta"):
    rk.build("resnet8_cifar", num_classes=3).summary()
run = rk.train("digits", model="resnet8_cifar", epochs=1, out=sys.argv[1])
assert (run.folder / "report.html").is_file()
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_numbers_and_state_are_pytorchs(name):
    generator = torch.Generator().manual_seed(0)
    first = [torch.randn(shape, generator=generator) for shape in ((8, 4, 3, 3), (8,))]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in first] for _ in range(2))
    own, reference = (
        getattr(module, name)(parameters, fused=True, **SETTINGS[name])
        for module, parameters in ((untraced, ours), (torch.optim, theirs))
    )

    def step():
        for a, b in zip(ours, theirs):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        own.step()
        reference.step()
        assert all(a.equal(b) for a, b in zip(ours, theirs))

    for _ in range(4):
        step()
    assert not ours[0].grad_fn and ours[0].requires_grad
    state, expected = own.state_dict(), reference.state_dict()
    assert state["param_groups"] == expected["param_groups"]
    for parameter, values in expected["state"].items():
        assert all(
            torch.equal(state["state"][parameter][key], value) for key, value in values.items() if value is not None
        )
    own = getattr(untraced, name)(ours, fused=True, **SETTINGS[name])
    own.load_state_dict(copy.deepcopy(expected))
    step()
    own.zero_grad()
    assert ours[0].grad is None


def test_hooks_of_a_step_are_called():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, called = untraced.SGD([weight], lr=0.1), []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    weight.grad = torch.ones(2)
    optimizer.step()
    assert called == ["before", "after"]


def test_neither_a_run_with_its_report_nor_a_summary_imports_the_compiler(tmp_path):
    """It takes longer than everything else before the first step."""
    done = subprocess.run([sys.executable, "-c", FRESH, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
