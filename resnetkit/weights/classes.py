"""Names of the classes of published networks, in the order of their outputs."""

from importlib.resources import files

# https://www.cs.toronto.edu/~kriz/cifar.html, batches.meta and the fine labels of CIFAR-100's meta.
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm""".split()


def imagenet() -> list[str]:
    """The 1,000 names as torchvision has them (torchvision/models/_meta.py, BSD-3)."""
    return (files("resnetkit.weights") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()


def class_names(count: int, stem: str) -> list[str] | None:
    """Those of ImageNet, CIFAR-10 or CIFAR-100 for as many outputs behind such a stem; None for others."""
    if stem == "3x3":
        return {10: list(CIFAR10), 100: list(CIFAR100)}.get(count)
    return imagenet() if count == 1000 else None
