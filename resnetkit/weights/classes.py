"""What the outputs of networks trained on ImageNet, CIFAR-10 and CIFAR-100 stand for.

`imagenet_classes.txt` are torchvision's names of the 1,000 classes of ILSVRC 2012, in the order of their WordNet ids,
which every library uses (torchvision/models/_meta.py, BSD-3-Clause, Copyright (c) Soumith Chintala 2016). CIFAR's are
those of its authors' meta files.
"""

from importlib.resources import files

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
""".split()


def class_names(count: int, stem: str) -> list[str] | None:
    """The names that a foreign network with `count` outputs and this stem must mean; None where nothing tells."""
    if count == 1000:
        return (files("resnetkit.weights") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    known = {(10, "3x3"): CIFAR10, (100, "3x3"): CIFAR100}.get((count, stem))
    return None if known is None else list(known)
