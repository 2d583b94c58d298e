"""Policies on single images: each operation against Pillow's or torchvision's own, and what a policy promises."""

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.policies import OPERATIONS, UNSIGNED, apply, apply_policy, erase


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 200, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((40, 30), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_moves_an_image_away_from_itself(name, picture):
    def distance(level, sign=1):
        changed = apply(picture, name, level, sign)
        assert changed.size == picture.size and changed.mode == picture.mode
        return float(np.abs(np.asarray(changed, float) - np.asarray(picture, float)).mean())

    if name in ("autocontrast", "equalize", "identity"):
        assert distance(0) == distance(30)
        assert (distance(30) > 0) == (name != "identity")
    else:
        assert distance(0) == 0
        assert 0 < distance(10) < distance(30)
        if name not in UNSIGNED:
            assert distance(30, -1) > 0
            opposite = np.asarray(apply(picture, name, 30, -1)) != np.asarray(apply(picture, name, 30, 1))
            assert opposite.any()


@pytest.mark.parametrize("policy", ["trivial", "rand", "augmix"])
def test_a_policy_is_a_function_of_its_generator(policy, picture):
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    results = [apply_policy(image, policy, Random(seed), 9) for seed in range(30)]
    assert all(r.shape == image.shape and r.dtype == torch.uint8 for r in results)
    assert all(torch.equal(r, apply_policy(image, policy, Random(seed), 9)) for seed, r in enumerate(results))
    assert sum(not torch.equal(r, image) for r in results) > 20
    grey = image[:1]
    assert apply_policy(grey, policy, Random(0), 9).shape == grey.shape


def test_erasing_takes_a_box_of_the_papers_size(picture):
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    shares = []
    for seed in range(300):
        erased = erase(image, Random(seed))
        touched = (erased != 0).any(0)
        rows, columns = touched.any(1).nonzero()[:, 0], touched.any(0).nonzero()[:, 0]
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert touched.sum() > 0.97 * area  # noise hits 0 seldom, three channels at once hardly ever
        shares.append(float(area) / 64**2)
    assert min(shares) > 0.01 and max(shares) < 0.36
    assert not image.any(), "the image itself is untouched"
