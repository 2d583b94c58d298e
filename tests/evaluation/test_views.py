import torch
from torch import Tensor

from resnetkit.data.datasets import digits
from resnetkit.data.ingest import ingest
from resnetkit.evaluation.answers import answer
from resnetkit.evaluation.views import averaged
from tests.weights.test_model_file import small_model


def test_small_images_are_also_seen_moved_by_a_pixel():
    """Six views by airbench94_muon's weights, the moved ones written with torch.roll and the reflected rim by hand."""
    model = small_model()
    part = ingest(digits(), 0.0).dataset.parts["test"]
    images, labels = part.images[:50], part.labels[:50] % 3

    def logits(batch: Tensor, tta: bool = False) -> Tensor:
        return answer(model.network, [(batch, labels)], model.preprocessing, tta=tta).logits

    def moved(step: int) -> Tensor:
        rolled = images.roll((step, step), (2, 3))
        edge, beside = (0, 2) if step == 1 else (-1, -3)
        rolled[:, :, edge] = rolled[:, :, beside]
        rolled[:, :, :, edge] = rolled[:, :, :, beside]
        return rolled

    views = [(images, 0.25), (moved(1), 0.125), (moved(-1), 0.125)]
    expected = sum(weight * (logits(view) + logits(view.flip(-1))) for view, weight in views)
    assert torch.allclose(logits(images, tta=True), expected, atol=1e-5)
    assert not torch.allclose(logits(images), expected, atol=1e-3)


def test_photos_are_averaged_with_their_mirror_images_alone():
    seen = []

    def net(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, :, 0, 0]

    x = torch.rand(2, 3, 65, 64)
    assert torch.equal(averaged(net, x), (x[:, :, 0, 0] + x[:, :, 0, -1]) / 2)
    assert len(seen) == 2
    averaged(net, x[:, :, :64])
    assert len(seen) == 2 + 6
