"""Keras models for the tests of both directions, built by Keras's own calls and by nothing of ours."""

import random

import numpy as np
import torch


def randomise_keras(model, seed=0):
    """Norms as after training, some variances near epsilon, and biases that are not zero."""
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        values = layer.get_weights() if type(layer).__name__ in ("Conv2D", "Dense", "BatchNormalization") else []
        if not values or layer.weights != list(layer.trainable_weights) + list(layer.non_trainable_weights):
            continue
        new = []
        for weight, value in zip(layer.weights, values):
            name, shape = weight.name, value.shape
            few = max(1, shape[-1] // 8)
            if name in ("gamma", "moving_variance"):
                value = generator.uniform(0.5, 1.5, shape)
                # Near epsilon in a few channels, whose scales keep deep networks in range.
                value[:few] = generator.uniform(1e-5, 1e-3, few) if name == "moving_variance" else 0.02
            elif name != "kernel":
                value = generator.normal(0, 0.2, shape)
            new.append(value)
        layer.set_weights(new)
    return model


def images(count, height, width, channels=3):
    return torch.randn(count, channels, height, width)


def logits(keras, model, x):
    """(N, classes) before any softmax of a channels-last model, for x (N, C, H, W)."""
    last = model.layers[-1]
    if type(last).__name__ == "Softmax":
        model = keras.Model(model.inputs, last.input)
    elif getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
    with torch.no_grad():
        return torch.as_tensor(model(x.permute(0, 2, 3, 1).contiguous(), training=False)).float()


def close(got, expected):
    """Equal within 1e-4 of the larger of 1 and the largest logit."""
    return bool((got - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max())))


class RandomResNet:
    """A functional ResNet drawn from `seed`: how deep, how wide, and every habit in which people's code differs."""

    def __init__(self, keras, seed):
        self.draw = random.Random(seed)
        self.keras, self.L = keras, keras.layers
        draw = self.draw
        self.bottleneck = draw.random() < 0.5
        self.preactivation = draw.random() < 0.4
        self.bias = draw.random() < 0.5
        self.shortcut_norm = draw.random() < 0.5
        self.epsilon = draw.choice([1e-3, 1e-5, 1.001e-5, 2e-4])
        self.momentum = draw.choice([0.99, 0.9])
        self.explicit = draw.random() < 0.4  # ZeroPadding2D before valid strided convolutions
        self.stride_place = draw.choice(["first", "3x3", "last block"])
        self.relu = draw.choice(["layer", "activation"])
        self.center, self.scale = draw.random() < 0.8, draw.random() < 0.8
        self.big_stem = draw.random() < 0.5
        self.depths = [draw.randint(2, 3) for _ in range(draw.randint(2, 3))]
        first = draw.choice([4, 6, 8])
        self.widths = [first * 2**i for i in range(len(self.depths))]
        self.names = draw.choice([None, "block{}", "res{}_branch", "Körper {}"])
        self.count = 0
        self.size = draw.choice([(32, 32), (33, 46)])

    def name(self):
        self.count += 1
        return {"name": self.names.format(self.count)} if self.names else {}

    def conv(self, x, filters, kernel, stride=1):
        padding = "same" if kernel > 1 or self.draw.random() < 0.5 else "valid"
        if self.explicit and kernel > 1 and stride > 1:
            x, padding = self.L.ZeroPadding2D(kernel // 2, **self.name())(x), "valid"
        settings = {"strides": stride, "padding": padding, "use_bias": self.bias}
        return self.L.Conv2D(filters, kernel, **settings, **self.name())(x)

    def norm(self, x):
        settings = {"epsilon": self.epsilon, "momentum": self.momentum, "center": self.center, "scale": self.scale}
        return self.L.BatchNormalization(**settings, **self.name())(x)

    def activate(self, x):
        return (self.L.ReLU(**self.name()) if self.relu == "layer" else self.L.Activation("relu", **self.name()))(x)

    def stem(self, x):
        x = self.conv(x, self.widths[0], 7, 2) if self.big_stem else self.conv(x, self.widths[0], 3)
        if not self.preactivation:
            x = self.activate(self.norm(x))
        if not self.big_stem:
            return x
        if self.explicit:
            x = self.L.ZeroPadding2D(1, **self.name())(x)
        return self.L.MaxPooling2D(3, strides=2, padding="valid" if self.explicit else "same", **self.name())(x)

    def convs(self, width, stride):
        if not self.bottleneck:
            return [(width, 3, stride), (width, 3, 1)]
        strides = (stride, 1) if self.stride_place == "first" else (1, stride)
        return [(width, 1, strides[0]), (width, 3, strides[1]), (4 * width, 1, 1)]

    def block(self, x, width, stride):
        out = 4 * width if self.bottleneck else width
        late = self.stride_place == "last block"
        change = x.shape[-1] != out or (stride > 1 and not late)
        shortcut, y = x, x
        if self.preactivation:
            y = self.activate(self.norm(x))
            shortcut = y if change else x
        for i, shape in enumerate(self.convs(width, stride)):
            if i:
                y = self.activate(y if self.preactivation is False else self.norm(y))
            y = self.conv(y, *shape)
            if not self.preactivation:
                y = self.norm(y)
        if change:
            shortcut = self.conv(shortcut, out, 1, stride)
            shortcut = self.norm(shortcut) if self.shortcut_norm else shortcut
        elif stride > 1:
            shortcut = self.L.MaxPooling2D(1, strides=stride, **self.name())(shortcut)
        pair = [shortcut, y] if self.draw.random() < 0.5 else [y, shortcut]
        total = self.L.Add(**self.name())(pair)
        return total if self.preactivation else self.activate(total)

    def model(self):
        inputs = self.keras.Input((*self.size, 3))
        x = self.stem(inputs)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths)):
            late = self.stride_place == "last block"
            for block in range(depth):
                strided = stage > 0 and block == (depth - 1 if late else 0)
                x = self.block(x, width, 2 if strided else 1)
        if self.preactivation:
            x = self.activate(self.norm(x))
        return self.keras.Model(inputs, self.head(x))

    def head(self, x):
        if self.draw.random() < 0.3 and x.shape[1] == x.shape[2]:
            x = self.L.Flatten()(self.L.AveragePooling2D(x.shape[1])(x))
        else:
            x = self.L.GlobalAveragePooling2D()(x)
        if self.draw.random() < 0.5:
            x = self.L.Dropout(0.3)(x)
        end = self.draw.choice(["softmax", None, "layer"])
        x = self.L.Dense(5, activation=end if end == "softmax" else None, **self.name())(x)
        return self.L.Softmax()(x) if end == "layer" else x
