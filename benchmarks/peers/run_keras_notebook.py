"""The notebook's network as its code stands: ResNet-34's blocks, never striding after the stem."""

from keras_peer import KerasPeer


def make(job: dict):
    from keras import Model, layers

    def block(x, filters: int):
        shortcut = x
        if x.shape[-1] != filters:
            shortcut = layers.Conv2D(filters, 1, padding="same")(x)
            shortcut = layers.BatchNormalization()(shortcut)
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        return layers.Activation("relu")(layers.Add()([x, shortcut]))

    inputs = layers.Input((job["img_size"], job["img_size"], 3))
    x = layers.Conv2D(64, 7, strides=2, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(blocks):
            x = block(x, filters)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(job["classes"], activation="softmax")(x))


KerasPeer(make, "the notebook's network").serve()
