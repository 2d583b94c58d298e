"""The operations of augmentation policies give torchvision's pixels."""

import numpy as np
import pytest
from PIL import Image

from resnetkit.data.policies import UNSIGNED, apply

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("name, theirs", [("brightness", "Brightness"), ("colour", "Color"), ("contrast", "Contrast"),
                                          ("sharpness", "Sharpness"), ("solarize", "Solarize"),
                                          ("autocontrast", "AutoContrast"), ("equalize", "Equalize"),
                                          ("posterize", "Posterize"), ("rotate", "Rotate")])  # fmt: skip
def test_the_operations_are_torchvisions(name, theirs, torchvision_models):
    from torchvision.transforms.autoaugment import RandAugment, _apply_op
    from torchvision.transforms.functional import InterpolationMode

    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)
    magnitudes, signed = RandAugment()._augmentation_space(31, (30, 40))[theirs]
    for level in (0, 7, 30):
        magnitude = float(magnitudes[level]) if magnitudes.ndim else 0.0
        wanted = _apply_op(picture, theirs, magnitude, InterpolationMode.NEAREST, [128] * 3)
        assert np.array_equal(np.asarray(apply(picture, name, level)), np.asarray(wanted)), (name, level)
        assert signed == (name not in UNSIGNED)
