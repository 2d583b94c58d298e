from dataclasses import replace

import pytest
import torch
from torch import Tensor

from resnetkit.data.datasets import digits
from resnetkit.data.ingest import ingest
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.answers import answer
from resnetkit.evaluation.evaluate import evaluate
from resnetkit.evaluation.views import Forward, averaged, forward_of, once
from tests.weights.test_model_file import small_model


@pytest.mark.parametrize("flip", [True, False])
def test_small_images_are_also_seen_moved_by_a_pixel(flip):
    """Six views by airbench94_muon's weights, the moved ones written with torch.roll and the reflected rim by hand;
    three for a network that was trained without mirror images."""
    model = small_model()
    model.provenance["recipe"] = {"flip": flip}
    part = ingest(digits(), 0.0).dataset.parts["test"]
    images, labels = part.images[:50], part.labels[:50] % 3

    def logits(batch: Tensor, forward: Forward = once) -> Tensor:
        return answer(model.network, [(batch, labels)], model.preprocessing, forward=forward).logits

    def moved(step: int) -> Tensor:
        rolled = images.roll((step, step), (2, 3))
        edge, beside = (0, 2) if step == 1 else (-1, -3)
        rolled[:, :, edge] = rolled[:, :, beside]
        rolled[:, :, :, edge] = rolled[:, :, :, beside]
        return rolled

    expected = torch.zeros(50, 3)
    for view, weight in ((images, 0.5), (moved(1), 0.25), (moved(-1), 0.25)):
        expected += weight * ((logits(view) + logits(view.flip(-1))) / 2 if flip else logits(view))
    assert torch.allclose(logits(images, forward_of(model, tta=True)), expected, atol=1e-5)
    assert torch.equal(logits(images, forward_of(model, tta=False)), logits(images))
    assert not torch.allclose(logits(images), expected, atol=1e-3)


def test_photos_are_averaged_with_their_mirror_images_alone():
    seen = []

    def net(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, :, 0, 0]

    x = torch.rand(2, 3, 65, 64)
    assert torch.equal(averaged(net, x, mirrored=True), (x[:, :, 0, 0] + x[:, :, 0, -1]) / 2)
    assert len(seen) == 2
    averaged(net, x[:, :, :64], mirrored=True)
    assert len(seen) == 2 + 6


def test_one_pixel_is_not_moved():
    x = torch.rand(2, 3, 1, 8)
    assert torch.equal(averaged(lambda x: x[:, :, 0, 0], x, mirrored=False), x[:, :, 0, 0])


def test_a_network_that_has_no_other_view_is_refused():
    model = small_model()
    model.provenance["recipe"] = {"flip": False}
    model.preprocessing = replace(model.preprocessing, size=(224, 224))
    with pytest.raises(ResnetkitError, match="flip = false.*leave --tta out"):
        evaluate(model, "digits", tta=True)
