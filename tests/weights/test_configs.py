"""config.json and preprocessor_config.json of transformers and timm: what they tell, and what is refused."""

import json

import pytest

from resnetkit.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.weights import from_huggingface, from_timm

MICROSOFT = {  # as the first ResNets of transformers came, before sizes were dictionaries
    "crop_pct": 0.875,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 3,
    "size": 224,
}


def pixels_of(record, folder):
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    return from_huggingface.preprocessing({}, folder)


def test_an_early_transformers_folder(tmp_path):
    assert from_huggingface.preprocessing({}, tmp_path) is None
    assert pixels_of(MICROSOFT, tmp_path) == Preprocessing(size=(224, 224), resize=256, interpolation="bicubic")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"do_rescale": False}, "not scaled to 0..1"),
        ({"resample": 1}, "resample 1 is neither"),
        ({"do_resize": False}, "it does not resize"),
        ({"image_mean": None}, "say how with --preprocessing"),
        ({"size": {"shortest_edge": 224}, "feature_extractor_type": "ViTFeatureExtractor"}, "many sizes"),
        ({"size": {}, "feature_extractor_type": "ViTFeatureExtractor"}, "it lacks 'height'"),
        ({"size": None}, "say how with --preprocessing"),
    ],
)
def test_pixels_that_cannot_be_made_are_refused(change, problem, tmp_path):
    with pytest.raises(ResnetkitError, match=problem):
        pixels_of(MICROSOFT | change, tmp_path)


def test_labels_of_transformers():
    assert from_huggingface.classes({"id2label": {"1": "dog", "0": "cat"}}) == ["cat", "dog"]
    assert from_huggingface.classes({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}) is None
    assert from_huggingface.classes({}) is None
    with pytest.raises(ResnetkitError, match="without a gap"):
        from_huggingface.classes({"id2label": {"0": "cat", "2": "dog"}})


@pytest.mark.parametrize(
    ("reader", "config", "problem"),
    [
        (from_huggingface, {"model_type": "regnet"}, "'regnet'"),
        (from_huggingface, {"model_type": "resnet", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (from_timm, {"architecture": "seresnextaa101d_32x8d"}, "anti-aliased"),
        (from_timm, {"architecture": "resnetblur50"}, "anti-aliased"),
        (from_timm, {"architecture": "resnetv2_50x1_bit"}, "weight standardisation"),
        (from_timm, {"architecture": "resnet50", "model_args": {"aa_layer": "blurpool"}}, "model_args aa_layer"),
        (from_timm, {"architecture": "resnet50", "global_pool": "catavgmax"}, "catavgmax"),
        (from_timm, {"architecture": "resnetv2_50", "model_args": {"stem_type": "same"}}, "stem_type 'same' pools"),
    ],
)
def test_networks_that_ours_cannot_be_are_refused(reader, config, problem):
    with pytest.raises(ResnetkitError, match=problem):
        reader.known(config)


def test_timms_flat_files_of_old():
    config = {"architecture": "resnet50", "input_size": [3, 160, 160], "crop_pct": 0.95, "interpolation": "bicubic"}
    assert from_timm.preprocessing(config | {"labels": ["a"]}, None).resize == 168
    assert from_timm.classes(config | {"labels": ["a"]}) == ["a"]
    assert from_timm.preprocessing({"architecture": "resnet50"}, None) is None
    with pytest.raises(ResnetkitError, match="crop_mode 'border'"):
        from_timm.preprocessing(config | {"crop_mode": "border"}, None)
    with pytest.raises(ResnetkitError, match="interpolation must be"):
        from_timm.preprocessing(config | {"interpolation": "lanczos"}, None)
