"""torchvision's ImageFolder and transforms, as its references/classification use them."""

from pathlib import Path

from loader_peer import LoaderPeer
from operators import declare


def make(job: dict):
    declare()
    from torchvision import datasets, transforms

    steps = [
        transforms.RandomResizedCrop(job["img_size"], scale=(0.25, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    return datasets.ImageFolder(Path(job["data"]) / "train", transforms.Compose(steps))


LoaderPeer(make, "torchvision ImageFolder and DataLoader").serve()
