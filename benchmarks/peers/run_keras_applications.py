"""keras.applications: its ResNet50 and the like, which stride in the first 1x1 convolution."""

from keras_peer import KerasPeer

NAMES = {"resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152"}


def make(job: dict):
    from keras import applications

    if job["model"] not in NAMES:
        raise ValueError(f"keras.applications has {', '.join(NAMES)}, not {job['model']}")
    shape = (job["img_size"], job["img_size"], 3)
    return getattr(applications, NAMES[job["model"]])(weights=None, input_shape=shape, classes=job["classes"])


KerasPeer(make, "keras.applications", blue_first=True).serve()
