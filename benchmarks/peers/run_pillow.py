"""A plain loader: Pillow, a DataLoader, random resized crop and flip, as tutorials write it without torchvision."""

import math
import random
from pathlib import Path

from loader_peer import LoaderPeer
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(job: dict):
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Photos(Dataset):
        def __init__(self) -> None:
            classes = sorted(p.name for p in (Path(job["data"]) / "train").iterdir() if p.is_dir())
            self.samples = [
                (path, label)
                for label, name in enumerate(classes)
                for path in sorted((Path(job["data"]) / "train" / name).iterdir())
            ]

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, index: int):
            path, label = self.samples[index]
            with Image.open(path) as image:
                image = image.convert("RGB")
            area = image.width * image.height * random.uniform(0.25, 1.0)
            aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            width = min(image.width, round(math.sqrt(area * aspect)))
            height = min(image.height, round(math.sqrt(area / aspect)))
            left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
            side = job["img_size"]
            image = image.crop((left, top, left + width, top + height)).resize((side, side), Image.BILINEAR)
            if random.random() < 0.5:
                image = image.transpose(Image.FLIP_LEFT_RIGHT)
            values = np.asarray(image, dtype=np.float32) / 255
            values = (values - np.float32(MEAN)) / np.float32(STD)
            return torch.from_numpy(values.transpose(2, 0, 1).copy()), label

    return Photos()


LoaderPeer(make, "Pillow and DataLoader").serve()
