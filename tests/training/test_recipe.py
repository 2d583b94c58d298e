"""Recipes: every shipped one is valid, and a wrong setting is named with the nearest right one."""

import pytest

from resnetkit.architecture.variants import spec
from resnetkit.atomic import write_text
from resnetkit.errors import ResnetkitError
from resnetkit.training.recipe import load_recipe, make_recipe, parse_settings, recipe_names, to_toml
from resnetkit.weights.load import build


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid_and_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    spec(recipe.model)
    (tmp_path / "r.toml").write_text(to_toml(recipe))
    assert load_recipe(str(tmp_path / "r.toml")) == recipe


def test_what_is_written_reads_back(tmp_path):
    """A path in Latin-1 too."""
    name = '/\U0001f600/ü \udcfc "a"\\b\tc'
    recipe = make_recipe({"model": "resnet18", "epochs": 1, "lr": 1e-5, "weights": name})
    write_text(tmp_path / "r.toml", to_toml(recipe))
    assert load_recipe(str(tmp_path / "r.toml")) == recipe


def test_settings_replace_and_are_converted():
    recipe = load_recipe("digits", parse_settings({}, ["lr=0.2", "flip=true", "batch-size=32", "model=resnet8_cifar"]))
    assert (recipe.lr, recipe.flip, recipe.batch_size, recipe.model) == (0.2, True, 32, "resnet8_cifar")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"label_smothing": 0.1}, "no setting is called 'label_smothing'; did you mean label_smoothing?"),
        ({"lr": "fast"}, "setting lr='fast': input should be a valid number"),
        ({"epochs": 0}, "setting epochs=0: input should be greater than or equal to 1"),
        ({"optimizer": "adam"}, "setting optimizer='adam': input should be 'sgd', 'adamw', 'lamb' or 'muon'"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"milestones": "0.5,1.5"}, "setting milestones.1='1.5': input should be less than 1"),
    ],
)
def test_wrong_settings_are_named(settings, says):
    with pytest.raises(ResnetkitError) as error:
        make_recipe({"model": "resnet18", "epochs": 1, "lr": 0.1} | settings)
    assert says in str(error.value)


def test_what_is_missing_is_named():
    with pytest.raises(ResnetkitError, match="setting lr is missing, which has no default; give it"):
        make_recipe({"model": "resnet18", "epochs": 1})


def test_a_long_value_is_told_in_one_line():
    with pytest.raises(ResnetkitError, match=r"^setting model=ResNet\(.*\.\.\.: input should be a") as told:
        make_recipe({"model": build("resnet8_cifar"), "epochs": 1, "lr": 0.1})
    assert len(str(told.value)) < 200


def test_wrong_recipes_are_named(tmp_path):
    with pytest.raises(ResnetkitError, match="no recipe 'digit': .*did you mean digits?"):
        load_recipe("digit")
    with pytest.raises(ResnetkitError, match="gone.toml: no such file, and so no recipe"):
        load_recipe(tmp_path / "gone.toml")
    (tmp_path / "r.toml").write_text("lr = ")
    with pytest.raises(ResnetkitError, match="not valid TOML"):
        load_recipe(str(tmp_path / "r.toml"))
    with pytest.raises(ResnetkitError, match="clip_norm=inf: input should be a finite number"):
        make_recipe({"model": "resnet18", "epochs": 1, "lr": 0.1, "clip_norm": float("inf")})
    with pytest.raises(ResnetkitError, match="write it as key=value"):
        parse_settings({}, ["lr"])
    with pytest.raises(ResnetkitError, match="--set batch-size=8: batch_size is given twice"):
        parse_settings({"batch_size": "4", "lr": None}, ["lr=0.2", "batch-size=8"])


def test_weights_in_a_recipe_are_found_beside_it(tmp_path, monkeypatch):
    (tmp_path / "own.toml").write_text('model = "resnet18"\nepochs = 1\nlr = 1\nweights = "runs/first"\n')
    (tmp_path / "hub.toml").write_text('model = "resnet18"\nepochs = 1\nlr = 1\nweights = "hf:me/net"\n')
    monkeypatch.chdir("/")
    assert load_recipe(str(tmp_path / "own.toml")).weights == str(tmp_path / "runs/first")
    assert load_recipe(str(tmp_path / "hub.toml")).weights == "hf:me/net"
    (tmp_path / "id.toml").write_text('model = "resnet50"\nepochs = 1\nlr = 1\nweights = "resnet50.a1_in1k"\n')
    assert load_recipe(str(tmp_path / "id.toml")).weights == "resnet50.a1_in1k"


def test_the_training_size_follows_an_image_size():
    own = load_recipe("photos")
    assert own.train_size < own.img_size
    for size in (64, "256"):
        other = load_recipe("photos", {"img_size": size})
        assert other.train_size / int(size) == own.train_size / own.img_size
    assert load_recipe("photos", {"img_size": 256, "train_size": 200}).train_size == 200


def test_a_short_run_is_not_all_warm_up():
    assert load_recipe("photos").warmup_epochs == load_recipe("photos", {"epochs": 25}).warmup_epochs == 5
    assert load_recipe("photos", {"epochs": "5"}).warmup_epochs == pytest.approx(1)
    assert load_recipe("photos", {"epochs": 3.0}).warmup_epochs == load_recipe("photos", {"epochs": " 3"}).warmup_epochs
    assert load_recipe("photos", {"epochs": 3.0}).warmup_epochs == pytest.approx(0.6)
    assert load_recipe("photos", {"epochs": 100}).warmup_epochs == 5
    assert load_recipe("photos", {"epochs": 5, "warmup_epochs": 3}).warmup_epochs == 3
    assert load_recipe("small", {"epochs": 1}).warmup_epochs == 0


def test_a_recipes_own_epochs_have_its_own_warm_up(tmp_path):
    (tmp_path / "own.toml").write_text('model = "resnet18"\nepochs = 2\nlr = 1\nwarmup_epochs = 1\n')
    assert load_recipe(str(tmp_path / "own.toml"), {"epochs": 2}).warmup_epochs == 1
