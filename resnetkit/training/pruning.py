"""Which training images an epoch passes over: some of those that teach least."""

import torch
from torch import Tensor

from resnetkit.data.augment import epoch_generator

START = 0.25  # of the epochs see every image, and so does the last


def passed_over(share: float, images: int, epoch: int, epochs: int) -> int:
    """How many of `images` are not seen by `epoch` of `epochs`, counted from 0, where the setting is `share`."""
    return int(2 * share * images) // 2 if START * epochs <= epoch < epochs - 1 else 0


class Pruning:
    """The cross-entropy of each of `images` training images when last trained on, without smoothing or weights, and
    which are `kept` in the epoch at hand.

    An epoch passes over the share `share` of the images: every second, drawn anew, of the easiest twice as many. So an
    easy image is seen less often, but never lost from sight (after InfoBatch, Qin et al. 2024, section 3.2, whose
    larger gradients for the easy images that stay are left out). With share 0 nothing is recorded or passed over.
    """

    def __init__(self, images: int = 0, share: float = 0.0, device: torch.device | None = None) -> None:
        self.share = share
        self.losses = torch.full((images if share else 0,), torch.inf, device=device)
        self.kept = torch.ones(images if share else 0, dtype=torch.bool)

    def begin(self, epoch: int, epochs: int, seed: int) -> None:
        """Draw whom `epoch` of `epochs`, counted from 0, passes over."""
        self.kept.fill_(True)
        passed = passed_over(self.share, len(self.losses), epoch, epochs)
        if not passed:
            return
        easiest = self.losses.cpu().argsort(stable=True)[: int(2 * self.share * len(self.losses))]
        drawn = torch.randperm(len(easiest), generator=epoch_generator(seed, epoch, purpose=4))
        self.kept[easiest[drawn[:passed]]] = False

    def record(self, samples: Tensor, losses: Tensor) -> None:
        """Note the losses (n,) of the images with these numbers (n,)."""
        self.losses[samples.to(self.losses.device, non_blocking=True)] = losses

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; the next epoch's draw, or the rest of this epoch, depends on it."""
        return {"losses": self.losses, "kept": self.kept} if self.share else {}
