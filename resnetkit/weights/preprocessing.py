"""The preprocessing that a foreign network was trained with: what the user, the file or its kind says of it."""

from math import inf, isfinite

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.data.preprocess import COLOURS, IMAGENET_MEAN, IMAGENET_STD, PHOTO_SIZE, Preprocessing, channels_of
from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.weights.from_torchvision import CIFAR

Moments = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of values in 0..1

CAFFE_BGR = (103.939, 116.779, 123.68)  # keras.applications.imagenet_utils, mode "caffe"
NAMED: dict[str, Moments] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "kuangliu": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # pytorch-cifar's, means of images' deviations
    "caffe": (tuple(value / 255 for value in CAFFE_BGR), (1 / 255,) * 3),  # blue first
    "tf": ((0.5,) * 3, (0.5,) * 3),  # -1 to 1
    "unit": ((0.0,) * 3, (1.0,) * 3),  # 0 to 1
    "raw": ((0.0,) * 3, (1 / 255,) * 3),  # 0 to 255
}
BLUE_FIRST = ("caffe",)
PHOTO_CROP = 0.875  # torchvision's: shorter side 256, the centre 224
SMALL_SIZE = 32
LARGEST_SIZE = 8192
CURE = "say how with --preprocessing, which resnet convert takes"


def parse_preprocessing(text: str, network: NetworkSpec) -> tuple[Preprocessing, bool]:
    """What `--preprocessing` says, and whether the network reads blue first: a name of NAMED, or
    `mean=0.5,0.5,0.5,std=0.2,size=224,crop=0.875,channels=bgr`, of which any may be left out.

    `size` is the pixels a side that the network sees, `crop` their share of the resized shorter side. Raises
    ResnetkitError.
    """
    if not isinstance(text, str):
        raise ResnetkitError(f"preprocessing must be a word, as imagenet, or mean=...,std=...,size=...; not {text!r}")
    if "=" not in text:
        if text not in NAMED:
            raise ResnetkitError(f"preprocessing {text!r}: {did_you_mean(text, NAMED)} or mean=...,std=...,size=...")
        mean, std = NAMED[text]
        if network.in_channels not in COLOURS.values():
            raise ResnetkitError(f"preprocessing {text!r} is of pictures; say mean=...,std=... of each of the bands")
        if network.in_channels == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        return framed(network, (mean, std)), text in BLUE_FIRST
    values = _settings(text)
    size, crop = _single(values, "size"), _single(values, "crop")
    if size is not None and not (size.is_integer() and size <= LARGEST_SIZE):
        raise ResnetkitError(f"preprocessing size={size:g}: it must be a whole number of at most {LARGEST_SIZE}")
    if crop is not None and crop > 1:
        raise ResnetkitError(f"preprocessing crop={crop:g}: it must be at most 1")
    channels = values.get("channels", ["rgb"])
    if channels not in (["rgb"], ["bgr"]):
        raise ResnetkitError(f"preprocessing {text!r}: channels must be rgb or bgr")
    count = network.in_channels
    if channels == ["bgr"] and count != 3:
        raise ResnetkitError(
            f"preprocessing {text!r}: blue comes first of three channels, and the network takes {count}"
        )
    mean, std = (_numbers(values.get(key, [default]), key, count) for key, default in (("mean", "0"), ("std", "1")))
    return framed(network, (mean, std), int(size) if size else None, crop), channels == ["bgr"]


def framed(network: NetworkSpec, moments: Moments, size: int | None = None, crop: float | None = None) -> Preprocessing:
    """Small images whole for a CIFAR stem, the centre of photos for the others."""
    mean, std = moments
    channels = channels_of(network.in_channels)
    side = size or (SMALL_SIZE if network.stem == "3x3" else PHOTO_SIZE)
    if network.stem == "3x3" and crop is None:
        return Preprocessing(size=(side, side), framing="squash", channels=channels, mean=mean, std=std)
    resize = round(side / (crop or PHOTO_CROP))
    return Preprocessing(size=(side, side), resize=resize, channels=channels, mean=mean, std=std)


def usual(network: NetworkSpec, ecosystem: str) -> tuple[Preprocessing, str]:
    """What networks of these names are trained with where the file says nothing, and why it is taken."""
    if network.in_channels != 3:
        return framed(network, ((0.0,) * network.in_channels, (1.0,) * network.in_channels)), "nothing is known; 0 to 1"
    if network.stem != "3x3" and network.preactivation and ecosystem == "timm":
        return framed(network, NAMED["tf"]), f"timm's presets of resnetv2: -1 to 1, the centre {PHOTO_SIZE} of 256"
    if network.stem != "3x3":
        reason = f"the presets of {ecosystem}: ImageNet's statistics, the centre {PHOTO_SIZE} of 256"
    elif network.shortcut == "zero_pad" and ecosystem == CIFAR.library:
        reason = "the repository that names tensors so trains with ImageNet's statistics (akamaster, trainer.py)"
    else:
        return framed(network, NAMED["cifar10"]), "a CIFAR stem: CIFAR-10's statistics"
    return framed(network, NAMED["imagenet"]), reason


def _settings(text: str) -> dict[str, list[str]]:
    """`a=1,2,b=3` -> {"a": ["1", "2"], "b": ["3"]}."""
    values: dict[str, list[str]] = {}
    key = ""
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if equals:
            key = name.strip()
        if key not in ("mean", "std", "size", "crop", "channels"):
            raise ResnetkitError(f"preprocessing {text!r}: {key or word!r} is none of mean, std, size, crop, channels")
        values.setdefault(key, []).append((value if equals else word).strip())
    return values


def _single(values: dict[str, list[str]], key: str) -> float | None:
    if key not in values:
        return None
    try:
        (word,) = values[key]
        number = float(word)
    except ValueError as error:
        raise ResnetkitError(f"preprocessing {key}={','.join(values[key])}: one number is needed") from error
    if not 0 < number < inf:
        raise ResnetkitError(f"preprocessing {key}={number}: it must be above 0 and finite")
    return number


def _numbers(words: list[str], key: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, words))
        if not all(map(isfinite, numbers)):
            raise ValueError
    except ValueError as error:
        raise ResnetkitError(f"preprocessing {key}={','.join(words)}: numbers are needed") from error
    if len(numbers) == 1:
        return numbers * count
    if len(numbers) != count:
        raise ResnetkitError(f"preprocessing {key}={','.join(words)}: one number, or {count}")
    return numbers
