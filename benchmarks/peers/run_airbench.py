"""The record for CIFAR-10 at 94 %, airbench94_muon: time and accuracy of one run as a line of JSON.

python benchmarks/peers/run_airbench.py PATH/cifar10 --seed 0 --arithmetic float16|mixed|bfloat16|float32 [--compile]

Written from the program of github.com/KellerJordan/cifar10-airbench (Jordan 2024) with its network, which has no
shortcuts, its settings and its six views. It runs on the GPU where there is one. The original is in float16; on a
processor bfloat16 takes its place, or bfloat16 over float32 weights (`mixed`), or float32 where there is no bfloat16.
As there, the clock leaves out reading the data, compiling and the test after each epoch; the last test with the views
is on it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.datasets import open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.device import find_device
from resnetkit.training.allocator import keep_freed_memory

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WIDTHS = (64, 256, 256)
EPOCHS, BATCH, WHITEN_EPOCHS, PADDING = 8, 2000, 3, 2
BIAS_RATE, HEAD_RATE, FILTER_RATE, DECAY = 0.053, 0.67, 0.24, 2e-6 * BATCH
KINDS = {  # of the weights
    "float16": torch.float16,
    "mixed": torch.float32,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
ROUNDS, COEFFICIENTS = 3, (3.4445, -4.7750, 2.0315)


def filters(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:inputs])
    return conv


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    made.weight.requires_grad_(False)
    return made


def group(inputs: int, outputs: int) -> nn.Sequential:
    first = [filters(inputs, outputs), nn.MaxPool2d(2), norm(outputs), nn.GELU()]
    return nn.Sequential(*first, filters(outputs, outputs), norm(outputs), nn.GELU())


class Network(nn.Module):
    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False).copy_(whitening(images))
        sizes = (24, *WIDTHS)
        self.layers = nn.Sequential(nn.GELU(), *map(group, sizes, WIDTHS), nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, x: Tensor) -> Tensor:
        features = self.layers(self.whiten(x))
        return self.head(features) / features.shape[1]


def whitening(images: Tensor) -> Tensor:
    """(24, 3, 2, 2): the patches' eigenvectors over their deviations, and these negated."""
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).transpose(1, 3).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    scaled = vectors.T.reshape(12, 3, 2, 2) / (values[:, None, None, None] + 5e-4).sqrt()
    return torch.cat([scaled, -scaled])


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters: list[nn.Parameter], kind: torch.dtype, turned: Callable[[Tensor], Tensor]) -> None:
        super().__init__(parameters, {"lr": FILTER_RATE})
        self.kind = kind  # of its matrix products
        self.turned = turned

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for own in self.param_groups:
            for parameter in own["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if "running" not in state:
                    state["running"] = torch.zeros_like(gradient)
                running = state["running"].mul_(0.6).add_(gradient)
                parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                direction = self.turned((gradient + 0.6 * running).flatten(1).to(self.kind))
                parameter.sub_(own["lr"] * direction.view_as(parameter).to(parameter.dtype))


def orthogonal(matrix: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def shifted(padded: Tensor) -> Tensor:
    """Each image at a place of its own, no more than PADDING from the middle."""
    side = padded.shape[-1] - 2 * PADDING
    places = torch.randint(0, 2 * PADDING + 1, (len(padded), 2), device=padded.device)
    out = torch.empty_like(padded[:, :, :side, :side])
    for y in range(2 * PADDING + 1):
        for x in range(2 * PADDING + 1):
            here = (places[:, 0] == y) & (places[:, 1] == x)
            out[here] = padded[here, :, y : y + side, x : x + side]
    return out


class Run:
    """One run of the program; `seconds` is its clock."""

    def __init__(self, data: str, arithmetic: str, seed: int, compiled: bool, device: torch.device) -> None:
        torch.manual_seed(seed)
        torch.backends.cudnn.benchmark = True
        self.device = device
        parts = ingest(open_dataset(data), 0.0).dataset.parts
        kind = KINDS[arithmetic]
        products = torch.float32 if arithmetic == "float32" else torch.bfloat16
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
        pixels = {name: (part.images.to(device) / 255 - mean) / std for name, part in parts.items()}
        self.mixed = arithmetic == "mixed"
        self.labels = {name: part.labels.to(device) for name, part in parts.items()}

        began = self.now()
        net = Network(pixels["train"][:5000]).to(device)
        self.pixels = {name: x.to(kind).contiguous(memory_format=torch.channels_last) for name, x in pixels.items()}
        self.net = net.to(kind).to(memory_format=torch.channels_last)
        norms = [module.float() for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        rates = {net.whiten.bias: BIAS_RATE, net.head.weight: HEAD_RATE}
        rates |= {module.bias: BIAS_RATE for module in norms}
        others = [{"params": [p], "lr": rate, "weight_decay": DECAY / rate} for p, rate in rates.items()]
        banks = [p for p in net.parameters() if p.ndim == 4 and p.requires_grad]
        muon = Muon(banks, products, torch.compile(orthogonal) if compiled else orthogonal)
        self.optimizers = [torch.optim.SGD(others, momentum=0.85, nesterov=True), muon]
        for own in self.groups():
            own["first"] = own["lr"]
        flipped = torch.rand(len(self.labels["train"]), device=device) < 0.5
        images = torch.where(flipped[:, None, None, None], self.pixels["train"].flip(-1), self.pixels["train"])
        self.padded = F.pad(images, (PADDING,) * 4, "reflect")
        self.seconds = self.now() - began
        if compiled:
            net.compile(mode="max-autotune" if device.type == "cuda" else None)
        if compiled or device.type == "cuda":
            self.warm_up()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    def groups(self):
        return (own for optimizer in self.optimizers for own in optimizer.param_groups)

    def answer(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            return self.net(x).float()

    def warm_up(self) -> None:
        """Compile all that the clock will meet, let cuDNN choose and the optimizers load what they call; the network
        stays as it was. Twice, since what is compiled for a GPU is recorded at a second call."""
        before = {name: value.clone() for name, value in self.net.state_dict().items()}
        x = self.pixels["train"][:BATCH]
        for learning in (True, True, False, False):
            self.net.whiten.bias.requires_grad_(learning)
            self.answer(x).sum().backward()
            for optimizer in self.optimizers:
                optimizer.step()
            self.net.zero_grad(set_to_none=True)
        for optimizer in self.optimizers:
            optimizer.state.clear()
        self.net.eval()
        with torch.no_grad():
            for _ in range(2):
                self.answer(x)
                self.views(x)
        self.net.load_state_dict(before)

    def epoch(self, epoch: int, epochs: int) -> None:
        began = self.now()
        self.net.train()
        images = shifted(self.padded)
        images = images.flip(-1) if epoch % 2 else images
        labels = self.labels["train"]
        steps = len(labels) // BATCH
        for step, chosen in enumerate(torch.randperm(len(labels), device=self.device).split(BATCH)[:steps]):
            done = epoch * steps + step
            x = images[chosen].contiguous(memory_format=torch.channels_last)
            self.net.whiten.bias.requires_grad_(done < WHITEN_EPOCHS * steps)
            F.cross_entropy(self.answer(x), labels[chosen], label_smoothing=0.2, reduction="sum").backward()
            for own in self.groups():
                whole = WHITEN_EPOCHS if own["params"][0] is self.net.whiten.bias else epochs
                own["lr"] = own["first"] * max(0.0, 1 - done / (whole * steps))
            for optimizer in self.optimizers:
                optimizer.step()
            self.net.zero_grad(set_to_none=True)
        self.seconds += self.now() - began

    @torch.no_grad()
    def top1(self, judge: Callable[[Tensor], Tensor]) -> float:
        self.net.eval()
        said = torch.cat([judge(x) for x in self.pixels["test"].split(BATCH)]).argmax(1)
        return (said == self.labels["test"]).double().mean().item()

    def views(self, x: Tensor) -> Tensor:
        """The image for a half, two shifts by a pixel for a quarter each, all of them mirrored too."""
        padded, total = F.pad(x, (1,) * 4, "reflect"), torch.zeros((), device=self.device)
        for share, view in ((0.5, x), (0.25, padded[:, :, :32, :32]), (0.25, padded[:, :, 2:, 2:])):
            total = total + share / 2 * (self.answer(view) + self.answer(view.flip(-1)))
        return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arithmetic", choices=KINDS, default="mixed")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    given = parser.parse_args()
    keep_freed_memory()
    device = find_device("auto")
    run, curve = Run(given.data, given.arithmetic, given.seed, given.compile, device), []
    for epoch in range(given.epochs):
        run.epoch(epoch, given.epochs)
        curve.append({"seconds": round(run.seconds, 2), "top1": run.top1(run.answer)})
        print(curve[-1], file=sys.stderr, flush=True)
    began = run.now()
    top1 = run.top1(run.views)
    seconds = run.seconds + run.now() - began
    print(json.dumps({"seed": given.seed, "seconds": round(seconds, 2), "top1": top1, "curve": curve}))


if __name__ == "__main__":
    main()
