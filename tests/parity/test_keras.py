"""The notebook's network as its Keras code builds it, against ours: the same numbers in, the same numbers out."""

import numpy as np
import pytest
import torch

import resnetkit as rk
from resnetkit.weights.from_keras import read_keras
from tests.keras_models import close, images, logits, randomise_keras
from tests.parity.pairing import layers_as_they_run


def notebook_model(keras, input_shape, num_classes):
    """The notebook's construction: every stage at stride 1, `same` padding, Keras's defaults everywhere else."""
    L = keras.layers

    def conv_norm(x, filters, kernel, stride=1):
        return L.BatchNormalization()(L.Conv2D(filters, kernel, strides=stride, padding="same")(x))

    def block(x, filters):
        y = L.Activation("relu")(conv_norm(x, filters, 3))
        y = conv_norm(y, filters, 3)
        if x.shape[-1] != filters:
            x = conv_norm(x, filters, 1)
        return L.Activation("relu")(L.Add()([y, x]))

    inputs = keras.Input(input_shape)
    x = L.Activation("relu")(conv_norm(inputs, 64, 7, 2))
    x = L.MaxPooling2D(3, strides=2, padding="same")(x)
    for filters, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(count):
            x = block(x, filters)
    outputs = L.Dense(num_classes, activation="softmax")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


@torch.no_grad()
def copy_from_keras(keras, model, net, x):
    """Layers with weights in the order in which they were called; within a block ours runs the branch first too."""
    weighted = [layer for layer in model.layers if layer.weights]
    order = {id(op): i for i, op in enumerate(model.operations)}
    weighted.sort(key=lambda layer: order[id(layer)])
    ours = layers_as_they_run(net, x)
    assert len(weighted) == len(ours)
    by_kind = lambda kind: [m for m in ours if isinstance(m, kind)]  # noqa: E731
    pairs = []
    for keras_kind, kind in (
        (keras.layers.Conv2D, torch.nn.Conv2d),
        (keras.layers.BatchNormalization, torch.nn.BatchNorm2d),
        (keras.layers.Dense, torch.nn.Linear),
    ):
        theirs = [layer for layer in weighted if isinstance(layer, keras_kind)]
        pairs += list(zip(theirs, by_kind(kind), strict=True))
    generator = np.random.default_rng(0)
    for layer, module in pairs:
        if isinstance(module, torch.nn.BatchNorm2d):
            count = module.num_features
            values = [
                generator.uniform(0.5, 1.5, count),
                generator.normal(0, 0.2, count),
                generator.normal(0, 0.2, count),
                generator.uniform(1e-4, 2.0, count),  # some variances near epsilon, which is 1e-3
            ]
            layer.set_weights(values)
            names = ("weight", "bias", "running_mean", "running_var")
            for name, value in zip(names, layer.get_weights()):
                getattr(module, name).copy_(torch.from_numpy(value))
        else:
            kernel, _ = layer.get_weights()
            bias = generator.normal(0, 0.1, kernel.shape[-1])
            layer.set_weights([kernel, bias])
            kernel = torch.from_numpy(np.ascontiguousarray(kernel))
            module.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
            module.bias.copy_(torch.from_numpy(bias))


@pytest.mark.parametrize("size", [(64, 64), (51, 70)])
def test_the_notebooks_network_gives_keras_numbers(keras, size):
    model = notebook_model(keras, (*size, 3), 10)
    net = rk.build_resnet((*size, 3), 10).eval()
    assert model.count_params() == 21_315_338
    x = torch.randn(2, 3, *size)
    copy_from_keras(keras, model, net, x)
    expected = np.asarray(model.predict(x.permute(0, 2, 3, 1).numpy(), verbose=0))
    with torch.inference_mode():
        got = net(x).softmax(1).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_the_notebooks_file_is_read_without_keras(keras, tmp_path):
    model = randomise_keras(notebook_model(keras, (64, 64, 3), 10))
    model.save(tmp_path / "notebook.h5")
    found = read_keras(tmp_path / "notebook.h5")
    assert found.spec == rk.build_resnet((64, 64, 3), 10).spec
    net = rk.build_resnet((64, 64, 3), 10).eval()
    net.load_state_dict(found.tensors)
    x = images(2, 64, 64)
    with torch.no_grad():
        assert close(net(x), logits(keras, model, x))
