"""Convolutions with matrix units against PyTorch's own, on any processor: elsewhere bfloat16 is emulated."""

import pytest
import torch
from torch import nn

from resnetkit.architecture import convolution
from resnetkit.architecture.convolution import Conv2d

TOLERANCE = 0.01  # of the norm; bfloat16 rounds to 0.4 %


@pytest.fixture(autouse=True)
def matrix_units(monkeypatch):
    monkeypatch.setattr(convolution, "AMX", True)


def twins(*arguments, **choices):
    """Ours and PyTorch's with the same filters, which are numbers of bfloat16, as all that goes in; channels_last."""
    pair = Conv2d(*arguments, bias=False, **choices), nn.Conv2d(*arguments, bias=False, **choices)
    filters = {name: value.bfloat16() for name, value in pair[0].state_dict().items()}
    for conv in pair:
        conv.load_state_dict(filters)
    return [conv.to(memory_format=torch.channels_last) for conv in pair]


def images(count, channels, height, width):
    x = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))
    return x.bfloat16().float().contiguous(memory_format=torch.channels_last)


def run(conv, x, precision=torch.bfloat16):
    """(output, gradient of the images, gradient of the filters, the output's node)."""
    x, conv.weight.grad = x.clone().requires_grad_(), None
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        y = conv(x)
    y.backward(torch.linspace(-1, 1, y.numel()).bfloat16().reshape(y.shape).to(y.dtype))
    return y.detach().float(), x.grad, conv.weight.grad, y.grad_fn.name()


def apart(first, second):
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "count"),
    [
        *((1, 1, (12, 9), 12), (1, 2, (12, 9), 12), (1, 2, (7, 8), 12)),
        *((3, 1, (9, 8), count) for count in (12, 14, 23)),  # 7 side by side
        *((3, 1, (4, 3), 16), (3, 1, (2, 2), 43), (3, 1, (1, 1), 32)),
    ],
)
def test_values_and_gradients_are_those_of_pytorch(kernel, stride, size, count):
    mine, theirs = twins(64, 72, kernel, stride, kernel // 2)
    x = images(count, 64, *size)
    *got, node = run(mine, x)
    assert node != run(theirs, x)[3], "the usual way was taken"
    *wanted, _ = run(theirs, x, torch.float32)
    for own, other in zip(got, wanted, strict=True):
        assert own.shape == other.shape and own.dtype == other.dtype
        assert apart(own, other) < TOLERANCE
    assert got[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("choices", "size", "count"),
    [
        ({"groups": 4}, 8, 12),
        ({"dilation": 2}, 8, 12),
        ({"padding": 0}, 8, 12),
        ({"stride": 2}, 8, 12),
        ({}, 9, 12),
        ({}, 8, 7),
    ],
    ids=["grouped", "dilated", "unpadded", "strided", "wide", "few"],
)
def test_others_go_the_usual_way(choices, size, count):
    mine, theirs = twins(64, 72, 3, **{"padding": 1} | choices)
    x = images(count, 64, size, size)
    assert all(
        own == other if isinstance(own, str) else torch.equal(own, other)
        for own, other in zip(run(mine, x), run(theirs, x), strict=True)
    )


def test_other_padding_double_precision_and_no_gradient_go_the_usual_way():
    mine, theirs = twins(64, 72, 3, padding=1)
    x = images(12, 64, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mine(x), theirs(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert mine.double()(x.double()).dtype == torch.float64
    mine.float().padding_mode = theirs.padding_mode = "circular"
    for conv in (mine, theirs):
        conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    assert torch.equal(run(mine, x)[0], run(theirs, x)[0])


def test_gradients_by_sample():
    """As `torch.func` takes them, in float32, too."""
    mine, theirs = twins(64, 64, 3, padding=1)
    x = images(24, 64, 6, 6).unflatten(0, (2, 12))
    for precision in (torch.float32, torch.bfloat16):
        found = []
        for conv in (mine, theirs):

            def loss(weight, image, conv=conv, precision=precision):
                with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                    return torch.func.functional_call(conv, {"weight": weight}, (image,)).float().square().sum()

            found.append(torch.vmap(torch.func.grad(loss), (None, 0))(conv.weight.detach(), x))
        assert apart(*found) < TOLERANCE


def test_float32_and_other_orders_of_memory_go_the_usual_way():
    mine, theirs = twins(64, 72, 3, padding=1)
    x = images(12, 64, 8, 8)
    for own, other in zip(run(mine, x, torch.float32), run(theirs, x, torch.float32), strict=True):
        assert own == other if isinstance(own, str) else torch.equal(own, other)
    assert run(mine, x.contiguous())[3] == run(theirs, x.contiguous())[3]


@pytest.mark.parametrize("choices", [{}, {"groups": 4}, {"dilation": 2, "padding": 2}, {"stride": 3}], ids=str)
def test_strides_over_fewer_columns_are_right(choices):
    """oneDNN's gradient of filters is wrong there, or no number, or ends the process."""
    mine, theirs = twins(16, 32, 3, **{"stride": 2, "padding": 1} | choices)
    for height in (1, 2, 7):
        x = images(12, 16, height, mine.stride[1] - 1)
        *got, node = run(mine, x)
        *wanted, usual = run(theirs, x, torch.float32)
        assert node != usual, "the output is not cast from float32"
        assert got[0].isfinite().all() and all(apart(own, other) < TOLERANCE for own, other in zip(got, wanted))


def test_pointwise_without_gradients():
    mine, theirs = twins(64, 72, 1, 2)
    x = images(12, 64, 7, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = mine(x)
        assert found.dtype == torch.bfloat16 and apart(found.float(), theirs(x).float()) < TOLERANCE
        assert mine(x[:0]).shape == theirs(x[:0]).shape


def test_few_channels_go_the_usual_way():
    mine, theirs = twins(32, 64, 3, padding=1)
    x = images(12, 32, 8, 8)
    assert run(mine, x)[3] == run(theirs, x)[3]


def test_no_memory_is_read_that_nobody_wrote():
    """Numbers of an earlier tensor, here NaN, must not come into a gradient."""
    for choices, shapes in (
        ({}, ((72, 2), (71, 4), (31, 7), (16, 8), (8, 15))),
        ({"groups": 4}, ((31, 7), (16, 9), (8, 15))),
        ({"stride": 2}, ((31, 7), (16, 9), (8, 15))),
        ({"dilation": 2, "padding": 2}, ((31, 7), (16, 9))),
    ):
        mine, _ = twins(64, 96, 3, **{"padding": 1} | choices)
        for count, side in shapes:
            x = images(count, 64, side, side)
            spoilt = [torch.full((2**size,), float("nan")) for size in range(8, 22)]
            del spoilt
            assert all(found.isfinite().all() for found in run(mine, x)[:3])


def test_frozen_filters_have_no_gradient_and_images_theirs():
    mine, theirs = twins(64, 72, 3, padding=1)
    x = images(12, 64, 8, 8)
    for conv in (mine, theirs):
        conv.weight.requires_grad_(False)
    got, wanted = run(mine, x), run(theirs, x)
    assert got[2] is None and apart(got[1], wanted[1]) < TOLERANCE


def test_gradients_have_gradients():
    mine, theirs = twins(64, 64, 3, padding=1)
    found = []
    for conv in (mine, theirs):
        x = images(12, 64, 6, 6).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        (slope,) = torch.autograd.grad(y.float().square().sum(), conv.weight, create_graph=True)
        slope.square().sum().backward()
        found.append(x.grad)
    assert apart(*found) < TOLERANCE
