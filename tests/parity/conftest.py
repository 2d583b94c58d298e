"""torchvision and timm on a CPU build of torch: their compiled operators are declared, never run."""

import pytest

from benchmarks.peers.operators import declare


@pytest.fixture(scope="session")
def torchvision_models():
    declare()
    from torchvision import models

    yield models


@pytest.fixture(scope="session")
def timm(torchvision_models):
    import timm

    return timm


@pytest.fixture(scope="session")
def transformers():
    """Never imported in .venv-peers, where it would import torchvision at its collection."""
    import transformers

    transformers.logging.disable_progress_bar()
    return transformers
