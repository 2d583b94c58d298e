"""Convolutions in bfloat16 on processors with matrix units (AMX). For the gradient of filters oneDNN goes by rows of an
image; where they are short, those units idle, and it takes several times as long, unless images lie side by side."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.device import processor_has

AMX = processor_has("amx_bf16")
NARROW, CHANNELS = 8, 64  # pixels in a row at most, and channels at least, where side by side was measured to be faster
ROW = 64  # pixels; for rows of an odd length oneDNN 3.12 reads memory that nobody wrote
CAST = {torch.float32, torch.bfloat16}  # by autocast, which leaves double precision alone


class Conv2d(nn.Conv2d):
    """As PyTorch's, up to rounding. In bfloat16 on a processor one with a stride over fewer columns is computed in
    float32; with AMX one of 1x1 is a matrix product, and 3x3 filters over narrow maps get their gradient from images
    that lie side by side."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _in_bfloat16(input, weight):
            return super()._conv_forward(input, weight, bias)
        if self.stride[1] > 1 and self.kernel_size[1] > 1 and input.shape[3] < self.stride[1]:
            # There oneDNN 3.12 leaves memory unwritten that it then reads, for the gradient of filters.
            with torch.autocast("cpu", enabled=False):
                exact = input.float(), weight.float(), None if bias is None else bias.float()
                return super()._conv_forward(*exact).bfloat16()
        if AMX and bias is None and self._is_plain() and _eager() and channels_last(input):
            stride = self.stride[0]
            if self.kernel_size == (1, 1):
                pixels = input.bfloat16().permute(0, 2, 3, 1)[:, ::stride, ::stride]
                products = F.linear(pixels.flatten(0, 2), weight.bfloat16().flatten(1))
                return products.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)
            if torch.is_grad_enabled() and weight.requires_grad and self._is_narrow(input):
                return _SideBySide.apply(input.bfloat16(), weight.bfloat16())
        return super()._conv_forward(input, weight, bias)

    def _is_narrow(self, x: Tensor) -> bool:
        of_filters = self.kernel_size == (3, 3) and self.stride == (1, 1) and min(self.weight.shape[:2]) >= CHANNELS
        return of_filters and x.shape[3] <= NARROW and len(x) * (x.shape[3] + 1) >= ROW

    def _is_plain(self) -> bool:
        reach = tuple(side // 2 for side in self.kernel_size)
        square = self.stride[0] == self.stride[1] and self.dilation == (1, 1)
        return square and self.groups == 1 and self.padding == reach and self.padding_mode == "zeros"


def channels_last(x: Tensor) -> bool:
    """Whether maps (N, C, H, W) lie in memory as (N, H, W, C). Their gradient does only if what is done to them is done
    in that order: PyTorch makes that of a slice, or of a mean over H and W, in the order of the dimensions."""
    return x.stride(1) == 1


def _in_bfloat16(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of images and filters would be on the processor in bfloat16."""
    if not isinstance(x, Tensor) or x.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        cast = torch.get_autocast_dtype("cpu") is torch.bfloat16 and {x.dtype, weight.dtype} <= CAST
    else:
        cast = x.dtype is weight.dtype is torch.bfloat16
    return cast and x.ndim == 4


def _eager() -> bool:
    return not torch.compiler.is_compiling() and not torch.jit.is_tracing()  # type: ignore[attr-defined]


class _SideBySide(torch.autograd.Function):
    """A 3x3 convolution of stride 1, whose filters get their gradient from images side by side."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, filters: Tensor) -> Tensor:
        return F.conv2d(x, filters, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, filters = ctx.saved_tensors
        images = of_filters = None
        if ctx.needs_input_grad[0]:
            images = _backward(gradient, x, filters, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            of_filters = _backward(_in_rows(gradient), _in_rows(x), filters, (False, True, False))[1]
        return images, of_filters


def _backward(gradient: Tensor, x: Tensor, filters: Tensor, wanted: tuple[bool, ...]) -> Sequence[Tensor]:
    once = (1, 1)
    whole = (gradient, x, filters, None, once, once, once, False, (0, 0), 1, wanted)
    return torch.ops.aten.convolution_backward(*whole)


def _in_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N / k, C, H, ROW), rounded up: k images side by side, zeros right of each."""
    height, width = x.shape[2:]
    side_by_side = ROW // (width + 1)
    whole, rest = divmod(len(x), side_by_side)
    pixels = x.permute(0, 2, 3, 1)
    rows = x.new_zeros(whole + bool(rest), height, ROW, x.shape[1])
    places = rows[:, :, : side_by_side * (width + 1)].unflatten(2, (side_by_side, width + 1))
    places = places[..., :width, :].transpose(1, 2)
    places[:whole] = pixels[: len(x) - rest].unflatten(0, (whole, side_by_side))
    if rest:
        places[whole, :rest] = pixels[len(x) - rest :]
    return rows.permute(0, 3, 1, 2)
