"""What changes over a run, as pure functions: the learning rate by step, the image size by epoch."""

from math import ceil, cos, pi

from resnetkit.training.recipe import Recipe

ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4 / 25  # shares of the peak rate (Smith & Topin 2018, as PyTorch has it)
ONE_CYCLE_RISE = 0.3  # share of the steps
SMALLEST = 12  # pixels of the shorter side; chosen, with the recipe `small`, on CIFAR-10's training images


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of one step, counted from 0.

    `cosine`: a linear warm-up, then half a cosine to 0 (Loshchilov & Hutter 2017); `linear`: the same warm-up, then a
    straight line to 0. `one_cycle`: half a cosine up and half a cosine down; it warms up by itself, and
    `warmup_epochs`, where given, is the length of the rise. `step`: a tenth of it from each milestone on, after a
    linear warm-up (He et al. 2015, section 3.4).
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(recipe.warmup_epochs * steps_per_epoch, total - 1)
    if recipe.schedule == "one_cycle":
        rise = max(1.0, (warmup or ONE_CYCLE_RISE * total) - 1)
        if step <= rise:
            return recipe.lr * _between(ONE_CYCLE_START, 1, step / rise)
        return recipe.lr * _between(1, ONE_CYCLE_END, (step - rise) / (total - 1 - rise))
    if step < warmup:
        return recipe.lr * min(1.0, (step + 1) / warmup)
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** sum(step >= milestone * total for milestone in recipe.milestones)
    share = (step - warmup) / (total - warmup)
    return recipe.lr * (1 - share if recipe.schedule == "linear" else _between(1, 0, share))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * share)) / 2


def training_size(recipe: Recipe, size: tuple[int, int], epoch: int) -> tuple[int, int]:
    """(height, width) that an epoch, counted from 0, trains at.

    From `start_size` of the full size linearly to all of it at 4/5 of the epochs, in the last at the latest; in eighths
    of it, no shorter side below 12 pixels (progressive resizing, as in the ImageNet recipes of Howard 2018 and FFCV
    2022).
    The full size is `train_size` where that is less: objects look larger in random crops than in the centre that
    evaluation sees, so training at fewer pixels than evaluating gains twice (Touvron et al. 2019, FixRes).
    """
    if recipe.train_size and recipe.train_size < max(size):
        size = (recipe.train_size * size[0] // max(size), recipe.train_size * size[1] // max(size))
    whole = min(0.8 * recipe.epochs, recipe.epochs - 1)
    share = 1.0 if epoch >= whole else recipe.start_size + (1 - recipe.start_size) * epoch / whole
    eighths = max(int(share * 8 + 1e-9), min(8, ceil(8 * SMALLEST / min(size))))
    height, width = (eighths * side // 8 for side in size)
    return height, width
