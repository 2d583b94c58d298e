"""Convolutions in bfloat16 on processors with matrix units (AMX). For the gradient of filters oneDNN goes by rows of an
image; where they are short, those units idle, and it takes several times as long."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.device import processor_has

AMX = processor_has("amx_bf16")
NARROW = 10  # pixels in a row of the output, up to which a gradient by long rows was measured to be the faster
CAST = {torch.float32, torch.bfloat16}  # by autocast, which leaves double precision alone
IMAGES = 8  # at least, for rows to become long


class Conv2d(nn.Conv2d):
    """As PyTorch's, up to rounding. In bfloat16 with AMX one of 1x1 is a matrix product, and the gradient of 3x3
    filters over small maps is taken over the images side by side."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if AMX and _in_bfloat16(input, weight) and bias is None and self._is_plain():
            stride, pixels, filters = self.stride[0], input.bfloat16(), weight.bfloat16()
            if self.kernel_size == (1, 1):
                pixels = pixels.permute(0, 2, 3, 1)[:, ::stride, ::stride]
                return F.linear(pixels, filters.flatten(1)).permute(0, 3, 1, 2)
            narrow = input.shape[3] <= NARROW * stride and len(input) >= IMAGES
            if self.kernel_size == (3, 3) and narrow and torch.is_grad_enabled() and weight.requires_grad:
                return _SideBySide.apply(pixels, filters, stride)
        return super()._conv_forward(input, weight, bias)

    def _is_plain(self) -> bool:
        reach = tuple(side // 2 for side in self.kernel_size)
        square = self.stride[0] == self.stride[1] and self.dilation == (1, 1)
        return square and self.groups == 1 and self.padding == reach and self.padding_mode == "zeros"


def _in_bfloat16(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of them would be on the processor in bfloat16, op by op and with a pixel's channels side by
    side."""
    if not isinstance(x, Tensor) or x.device.type != "cpu":
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    if torch.is_autocast_enabled("cpu"):
        cast = torch.get_autocast_dtype("cpu") is torch.bfloat16 and {x.dtype, weight.dtype} <= CAST
    else:
        cast = x.dtype is weight.dtype is torch.bfloat16
    return cast and x.ndim == 4 and x.stride(1) == 1


class _SideBySide(torch.autograd.Function):
    """A 3x3 convolution, whose filters get their gradient from one image of all of them in a row, zeros between
    neighbours."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, filters: Tensor, stride: int) -> Tensor:
        return F.conv2d(x, filters, stride=stride, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.stride = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, filters = ctx.saved_tensors
        of_images = of_filters = None
        if ctx.needs_input_grad[0]:
            of_images = _gradients(gradient, x, filters, ctx.stride, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            width = gradient.shape[3] + (ctx.stride * gradient.shape[3] == x.shape[3])  # with a column between, or none
            rows = _in_a_row(gradient, width), _in_a_row(x, ctx.stride * width)
            of_filters = _gradients(*rows, filters, ctx.stride, (False, True, False))[1]
        return of_images, of_filters, None


def _gradients(
    gradient: Tensor, x: Tensor, filters: Tensor, stride: int, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, ...]:
    return torch.ops.aten.convolution_backward(
        gradient, x, filters, None, (stride, stride), (1, 1), (1, 1), False, (0, 0), 1, wanted
    )


def _in_a_row(x: Tensor, width: int) -> Tensor:
    """(N, C, H, W) -> (1, C, H, N `width`), channels_last, each image filled up with columns of zeros."""
    count, channels, height, own = x.shape
    row = F.pad(x.permute(2, 0, 3, 1), (0, 0, 0, width - own))
    return row.reshape(1, height, count * width, channels).permute(0, 3, 1, 2)
