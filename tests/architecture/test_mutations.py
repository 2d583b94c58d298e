"""Networks built wrong on purpose: each must turn a golden or published check red, and does so here."""

from dataclasses import replace

import pytest
import torch.nn.functional as F

from resnetkit.architecture import blocks, layers, resnet, stages
from tests.architecture import test_published as checks

NAME = "resnet20_cifar"


def edit_rows(monkeypatch, change):
    """Let the network be built from a plan whose rows `change` has edited."""
    monkeypatch.setattr(resnet, "plan", lambda spec: [change(row) for row in stages.plan(spec)])


def fails(check, *arguments) -> bool:
    try:
        check(*arguments)
    except (AssertionError, RuntimeError):
        return True
    return False


def test_the_checks_pass_unmutated():
    checks.test_golden_output(NAME)
    checks.test_golden_output("resnet50")
    checks.test_parameters_are_the_published(NAME)
    checks.test_golden_features_and_feature_info(NAME)


def test_a_wrong_plan_row(monkeypatch):
    edit_rows(monkeypatch, lambda row: replace(row, mid_channels=row.mid_channels + (row.stage == 1)))
    assert fails(checks.test_parameters_are_the_published, NAME)


def test_a_row_too_few(monkeypatch):
    monkeypatch.setattr(resnet, "plan", lambda spec: stages.plan(spec)[:-1])
    assert fails(checks.test_parameters_are_the_published, NAME)


def test_a_stride_lost(monkeypatch):
    edit_rows(monkeypatch, lambda row: replace(row, stride=1))
    assert fails(checks.test_golden_features_and_feature_info, NAME)


def test_a_stride_moved_to_the_1x1(monkeypatch):
    """Shapes and parameters agree; only the output tells."""
    moved = lambda spec, row: stages.branch_convs(replace(spec, stride_in_1x1=True), row)  # noqa: E731
    monkeypatch.setattr(blocks, "branch_convs", moved)
    assert not fails(checks.test_parameters_are_the_published, "resnet50")
    assert not fails(checks.test_golden_features_and_feature_info, "resnet50")
    assert fails(checks.test_golden_output, "resnet50")


def test_a_stride_moved_to_the_second_3x3(monkeypatch):
    def moved(spec, row):
        first, second = stages.branch_convs(spec, row)
        return [first._replace(stride=1), second._replace(stride=first.stride)]

    monkeypatch.setattr(blocks, "branch_convs", moved)
    assert not fails(checks.test_parameters_are_the_published, NAME)
    assert fails(checks.test_golden_output, NAME)


@pytest.mark.parametrize("side", ["end", "start"])
def test_a_shortcut_padded_on_one_side(monkeypatch, side):
    """Shapes, parameters and MACs agree; only the output tells."""

    def forward(self, x):
        new = self.before + self.after
        padding = (0, new) if side == "end" else (new, 0)
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *padding))

    monkeypatch.setattr(layers.ZeroPadShortcut, "forward", forward)
    assert not fails(checks.test_parameters_are_the_published, NAME)
    assert not fails(checks.test_golden_sizes, NAME)
    assert fails(checks.test_golden_output, NAME)


def test_symmetric_padding_in_the_notebooks_network(monkeypatch):
    monkeypatch.setattr(layers.SameConv2d, "forward", layers.nn.Conv2d.forward)
    assert not fails(checks.test_the_notebooks_network)
    assert fails(checks.test_golden_output, "resnet34_notebook")
