"""Muon: steps along the nearest orthogonal matrix to the momentum of each filter bank (Jordan et al. 2024)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from resnetkit.errors import ResnetkitError
from resnetkit.training.untraced import Untraced

BETAS, EPSILON = (0.9, 0.95), 1e-8  # of AdamW
ITERATIONS = 3  # of Newton-Schulz, as in airbench94_muon
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic whose slope at 0 is steepest (Jordan et al. 2024)


class Muon(Untraced):
    """Groups of rule `orthogonal` hold convolutions under a norm layer, each of which keeps the norm it begins with:
    only its direction matters there, and `lr` is the length of a step as a share of that norm. It takes the place of
    weight decay. As in airbench94_muon (Jordan 2024), where every filter bank is held at one norm. Each of a
    convolution's `filter_groups` is a matrix of its own. `sgd`: Nesterov's momentum and decay. `adamw`: AdamW, whose
    steps are as long whatever the scale of the gradients, as Muon's are.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        rest = {"weight_decay": 0.0, "rule": "adamw", "filter_groups": 1}
        super().__init__(groups, {"lr": lr, "momentum": momentum} | rest)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            if not learning:
                continue
            gradients = [p.grad for p in learning if p.grad is not None]
            if group["rule"] == "adamw":
                self._step_of_adamw(learning, gradients, group)
                continue
            momenta = self._momenta(learning, gradients, group)
            if group["rule"] == "sgd":
                torch._foreach_add_(learning, momenta, alpha=-group["lr"])
                continue
            for parameters, matrices in _by_shape(learning, momenta, group["filter_groups"]):
                _turn(parameters, orthogonal(matrices), group["lr"])

    def _momenta(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Nesterov's look ahead: the gradients plus their running sums."""
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        sums = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(sums, group["momentum"])
        torch._foreach_add_(sums, gradients)
        return list(torch._foreach_add(gradients, sums, alpha=group["momentum"]))

    def _step_of_adamw(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            own = self.state[parameter]
            if "momentum_buffer" in own:
                raise ResnetkitError("this run was begun with an earlier Muon, whose steps were others; start it anew")
            if not own:
                own["exp_avg"], own["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                own["step"] = torch.zeros(())
            own["step"] = own["step"].cpu()  # a resume put it where the parameter is
        means, squares, steps = ([self.state[p][key] for p in parameters] for key in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            foreach=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=EPSILON,
            maximize=False,
        )


def _by_shape(parameters: list[Tensor], momenta: list[Tensor], groups: int) -> Iterable[tuple[list[Tensor], Tensor]]:
    """Parameters of one shape and their momenta as matrices (count x groups, filters of a group, inputs): one product
    serves them all."""
    shapes: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
    for parameter, momentum in zip(parameters, momenta):
        alike = shapes.setdefault(parameter.shape, ([], []))
        alike[0].append(parameter)
        alike[1].append(momentum.flatten(1).unflatten(0, (groups, -1)))
    for same, matrices in shapes.values():
        yield same, torch.cat(matrices)


def _turn(parameters: list[Tensor], directions: Tensor, rate: float) -> None:
    """A step of `rate` times each parameter's norm along its direction, one matrix or several; the norm stays."""
    lengths = torch._foreach_norm(parameters)
    directions = directions.unflatten(0, (len(parameters), -1))
    spans = directions.flatten(1).norm(dim=1) + 1e-12
    steps = [
        direction.reshape(parameter.shape) * (-rate * length / span)
        for parameter, direction, length, span in zip(parameters, directions, lengths, spans)
    ]
    torch._foreach_add_(parameters, steps)
    torch._foreach_mul_(
        parameters, [before / (after + 1e-12) for before, after in zip(lengths, torch._foreach_norm(parameters))]
    )


def orthogonal(matrices: Tensor) -> Tensor:
    """Float32 (count, rows, columns) -> about U V^T of each one's singular value decomposition U S V^T, by
    Newton-Schulz iterations; singular values come out between 0.7 and 1.2 from three fifths of the largest on, smaller
    below.

    Every iterate is a polynomial in X X^T times X, so the iterations are taken on the small square X X^T alone, in half
    the time for filters of 3 x 3 (Gram Newton-Schulz, Zhang et al. 2026). Less exact in TF32; half precision would want
    restarts.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    gram = x @ x.mT
    factor = _quintic(gram)
    turning = factor
    for _ in range(ITERATIONS - 1):
        gram = factor @ factor @ gram
        factor = _quintic(gram)
        turning = factor @ turning
    x = turning @ x
    return x if wide else x.mT


def _quintic(gram: Tensor) -> Tensor:
    """a I + b G + c G^2, by which an iteration multiplies."""
    a, b, c = COEFFICIENTS
    factor = b * gram + c * gram @ gram
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
