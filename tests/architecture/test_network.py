"""What a network does: choices, features, dilation, refusals."""

import numpy as np
import pytest
import torch
from torch import nn

import resnetkit as rk
from resnetkit.architecture import convolution, layers
from resnetkit.architecture.layers import SqueezeExcite
from resnetkit.architecture.stages import plan
from resnetkit.architecture.summary import complexity
from resnetkit.architecture.variants import spec
from tests.conftest import randomise


@pytest.mark.parametrize(("stride", "step"), [(8, 4), (16, 2)])
@pytest.mark.parametrize(
    "choices",
    [{}, {"stride_in_1x1": True}, {"block": "basic"}, {"shortcut": "pooled"}],
)
def test_a_dilated_network_computes_the_same_at_more_places(stride, step, choices):
    """Dilation must be the strided network evaluated densely: subsampled, its maps are the strided ones."""
    strided = randomise(rk.build("resnet50", **choices)).double().eval()
    dilated = rk.build("resnet50", output_stride=stride, **choices).double().eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        sparse, dense = strided.features(x)[-1], dilated.features(x)[-1]
    assert dense.shape[2:] == (64 // stride, 96 // stride)
    torch.testing.assert_close(dense[:, :, ::step, ::step], sparse)


def test_a_backbone_gives_pooled_features():
    net = rk.build("resnet18", num_classes=0).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(x), net.features(x)[-1].mean((2, 3)))
    assert net(x).shape == (2, 512)


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet50", "resnet50d", "seresnet50", "plain56_cifar"])
@pytest.mark.parametrize("norm", ["batch", "group", "frozen", "none"])
def test_every_norm_trains_and_leaves_its_input_alone(name, norm):
    net = rk.build(name, num_classes=3, norm=norm, in_channels=2).train()
    x = torch.randn(2, 2, 64, 64)
    kept = x.clone()
    net(x).sum().backward()
    assert torch.equal(x, kept)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "preact_resnet18"])
def test_a_max_pool_in_place_of_a_stride_chooses_among_what_the_convolution_sees(name):
    """Against the strided network: a pool that takes the first of its places makes them the same."""
    strided = randomise(rk.build(name, num_classes=5)).double().eval()
    pooled = rk.build(name, num_classes=5, stride_by="max_pool").double().eval()
    pooled.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 72, 88, dtype=torch.float64)  # odd sizes on the way
    assert [m.shape for m in pooled.features(x)] == [m.shape for m in strided.features(x)]
    pools = [module for stage in pooled.stages for module in stage.modules() if isinstance(module, nn.MaxPool2d)]
    assert len(pools) == 3 and not torch.allclose(pooled(x), strided(x))
    for pool in pools:
        pool.forward = lambda maps: maps[:, :, ::2, ::2]
    torch.testing.assert_close(pooled(x), strided(x))


def test_frozen_norms_never_change():
    net = randomise(rk.build("resnet20_cifar", norm="frozen")).train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "norm" in k}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet50", "preact_resnet110_cifar"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_zero_init_makes_every_block_its_shortcut(name, norm):
    net = rk.build(name, zero_init_residual=True, norm=norm).eval()
    for row, block in zip(net.rows, (b for stage in net.stages for b in stage), strict=True):
        x = torch.randn(2, row.in_channels, 8, 8).relu()
        if row.shortcut == "identity":
            torch.testing.assert_close(block(x), x)


def test_stochastic_depth_leaves_whole_blocks_out_in_training_only():
    net = rk.build("resnet20_cifar", drop_path_rate=0.5)
    rates = [row.drop_rate for row in net.rows]
    assert rates == pytest.approx([0.5 * (i + 1) / 9 for i in range(9)])  # Huang et al. 2016, equation 4
    drop = net.stages[2][2].drop_path
    ones = torch.ones(1)
    drawn = [0.0 if drop.train().drops() else drop(ones).item() for _ in range(4000)]
    assert set(drawn) == {0.0, 2.0}
    assert sum(drawn) / len(drawn) == pytest.approx(1, abs=0.1)
    assert not any(drop.eval().drops() for _ in range(100)) and torch.equal(drop(ones), ones)


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet20_cifar"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_block_left_out_is_its_shortcut_and_its_norms_see_nothing(monkeypatch, name, activation):
    net = randomise(rk.build(name, drop_path_rate=0.5, activation=activation)).train()
    block, before = net.stages[1][1], {k: v.clone() for k, v in net.stages[1][1].state_dict().items()}
    calls = []
    block.branch.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(layers.DropPath, "drops", lambda self: True)
    x = torch.randn(2, 32, 8, 8)
    kept = x.clone()
    wanted = x if net.spec.preactivation else block.activation(x.clone())
    assert torch.equal(block(x), wanted) and torch.equal(x, kept)
    assert not calls and all(torch.equal(v, before[k]) for k, v in block.state_dict().items())
    monkeypatch.setattr(layers.DropPath, "drops", lambda self: False)
    block(x)
    assert calls


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet20_cifar"])
@pytest.mark.parametrize("scale", ["skipinit", "fixup"])
def test_without_norms_every_block_begins_as_its_shortcut_and_learns(name, scale):
    net = rk.build(name, norm="none", branch_scale=scale)
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(net.stages[0][-1](net.stem(x)), net.stem(x))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), torch.arange(4)).backward()
        optimizer.step()
    assert all(p.grad.count_nonzero() for p in net.stages[1][1].branch.parameters())


def test_fixup_is_the_papers_arithmetic():
    """Zhang et al. 2019, section 3.2: He's standard deviation times L^(-1 / (2m - 2))."""
    for name, blocks, layers_ in (("resnet110_cifar", 54, 2), ("preact_resnet164_cifar", 54, 3)):
        net = rk.build(name, norm="none", branch_scale="fixup", widths=(64, 64, 64))
        conv = net.stages[2][5].branch.conv1
        he = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(he * blocks ** (-1 / (2 * layers_ - 2)), rel=0.05)
        assert not net.head.classifier.weight.any()


@pytest.mark.parametrize("scale", ["none", "fixup", "skipinit"])
def test_maps_of_hundreds_of_layers_without_norms(scale):
    net = rk.build("resnet302_cifar", norm="none", branch_scale=scale, widths=(8, 8, 8), stem_width=8)
    with torch.no_grad():
        largest = net.features(torch.randn(2, 3, 8, 8))[-1].max()
    assert (largest > 1e6) == (scale == "none")  # doubled by every block


def test_plain_twin_has_no_shortcut_and_nothing_else_changed():
    plain, residual = rk.build("plain56_cifar"), rk.build("resnet56_cifar")
    assert {row.shortcut for row in plain.rows} == {"none"}
    assert plain.state_dict().keys() == residual.state_dict().keys()  # option A shortcuts hold no tensors
    block = plain.stages[0][0].eval()
    x = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(block(x), block.branch(x).relu())


def test_projection_where_width_or_stride_changes():
    first = plan(spec("resnet50"))[0]
    assert (first.stride, first.shortcut) == (1, "projection")
    rows = plan(spec("resnet18", widths=(64, 64, 64, 64)))
    assert [row.shortcut for row in rows] == ["identity"] * 2 + ["projection", "identity"] * 3


def test_stride_in_the_last_block_subsamples_there():
    rows = plan(spec("preact_resnet50", stride_in_last_block=True, strides=(2, 2, 2, 1)))
    assert [(row.block, row.stride, row.shortcut) for row in rows if row.stage == 0] == [
        (0, 1, "projection"),
        (1, 1, "identity"),
        (2, 2, "subsample"),  # keras.applications v2: a max pool of kernel 1
    ]


@pytest.mark.parametrize(
    ("name", "choices", "says"),
    [
        ("resnet21_cifar", {}, "6n+2 (basic) nor 9n+2 (bottleneck); the nearest that do are 20 and 26"),
        ("wide_resnet30_2_cifar", {}, "nearest that do are 28 and 34"),
        ("resnet5O", {}, "did you mean resnet50"),
        ("resnet50", {"atention": "se"}, "did you mean attention?"),
        ("resnet50", {"norm": "layer"}, "norm='layer' is impossible; it must be one of batch, group, frozen, none"),
        ("resnet50", {"output_stride": 12}, "output_stride=12 is impossible; it must be one of 4, 8, 16, 32"),
        ("resnet18", {"cardinality": 32}, "cardinality=32 is impossible"),
        ("resnet18", {"stride_in_1x1": True}, "which has no 1x1"),
        ("resnet18", {"stride_by": "pool"}, "stride_by='pool' is impossible; it must be one of conv, max_pool"),
        ("resnet18", {"stride_by": "max_pool", "output_stride": 8}, "it must be None with stride_by='max_pool'"),
        ("resnet18", {"stride_by": "max_pool", "strides": (1, 2, 3, 2)}, "1 or 2 with stride_by='max_pool'"),
        ("resnet50d", {"strides": (1, 3, 2, 2), "output_stride": 4}, "1 or 2 where pooled shortcuts are dilated"),
        ("resnet18", {"block": ["basic"]}, "block=('basic',) is impossible"),
        ("resnet18", {"drop_path_rate": 1.0}, "below 1"),
        ("resnet18", {"num_classes": -1}, "num_classes=-1"),
        ("plain34", {"drop_path_rate": 0.1}, "without shortcuts"),
        ("resnet18", {"branch_scale": "fixup"}, "branch_scale='fixup' is impossible; it must be none with norms"),
        ("plain34", {"norm": "none", "branch_scale": "skipinit"}, "none without shortcuts"),
        ("resnet18", {"norm": "none", "branch_scale": "fixup", "zero_init_residual": True}, "or nothing learns"),
        ("resnet18", {"norm_eps": "a"}, "norm_eps='a' is impossible; it must be a number"),
        ("resnet50", {"stride_in_1x1": "False"}, "it must be True or False"),
        ("resnet18", {"widths": 64}, "widths=64 is impossible"),
        (
            "resnet20_cifar",
            {"block": "bottleneck", "base_width": 2},
            "base_width=2 is impossible; it must be 4 at least",
        ),
        ("resnet18", {"stem": "deep", "stem_width": 1}, "2 at least with the deep stem"),
        ("resnet50", {"norm": "frozen", "zero_init_residual": True}, "False with frozen norms"),
        ("resnet50", {"strides": (1, 2)}, "strides=(1, 2) is impossible; it must be 4 positive whole numbers"),
    ],
)
def test_impossible_networks_are_refused_by_name(name, choices, says):
    with pytest.raises(rk.ResnetkitError, match="(?s).*") as error:
        rk.build(name, **choices)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers():
    found = spec("resnet18", np.array([3, 9]).max() + 1, np.int32(1), depths=[np.int64(2)] * 4, stem_width=np.uint8(8))
    assert found == spec("resnet18", 10, 1, depths=(2, 2, 2, 2), stem_width=8)
    assert type(found.num_classes) is type(found.depths[0]) is int
    with pytest.raises(rk.ResnetkitError, match="num_classes=True is impossible"):
        rk.build("resnet18", num_classes=True)


def test_what_is_no_name_is_told():
    with pytest.raises(rk.ResnetkitError, match="the name of a network, such as 'resnet50', is wanted, not int"):
        rk.build(50)
    with pytest.raises(rk.ResnetkitError, match="a checkpoint or an id is wanted, not bool"):
        rk.build("resnet18", weights=True)


@pytest.mark.parametrize("shape", [224, None, (224, 224), (0, 224, 3), (3, 224, 224), (1, 28, 28)])
def test_the_notebooks_shape_is_height_width_channels(shape):
    with pytest.raises(
        rk.ResnetkitError, match=r"(is impossible; it must be|is PyTorch.s order; give) \(height, width, channels\)"
    ):
        rk.build_resnet(shape, 10)
    with pytest.raises(rk.ResnetkitError, match="strides=2 is impossible"):
        rk.build_resnet((64, 64, 3), 10, strides=2)
    assert rk.build_resnet([3, 8, 13], 10, strides=[1, 2, 2, 2]).image_size == (3, 8)


def test_depth_formulas_choose_the_block():
    assert spec("resnet20_cifar").block == "basic"  # fits 6n+2 and 9n+2
    assert spec("resnet20_cifar", block="bottleneck").depths == (2, 2, 2)
    assert spec("resnet29_cifar").block == "bottleneck"
    assert spec("preact_resnet110_cifar").block == "basic"
    assert spec("preact_resnet164_cifar").block == "bottleneck"
    assert spec("preact_resnet164_cifar", block="basic").depths == (27, 27, 27)
    assert spec("preact_resnet1001_cifar").depths == (111, 111, 111)
    assert spec("fast_resnet8_cifar", block="basic") == spec("fast_resnet8_cifar")


def test_a_stride_of_three_is_a_networks_own():
    assert spec("resnet50d", strides=(1, 3, 2, 2), output_stride=48).output_stride == 48


def test_lists_are_as_good_as_tuples():
    assert spec("resnet18", strides=[1, 1, 1, 1]) == spec("resnet18", strides=(1, 1, 1, 1))


@pytest.mark.parametrize(("channels", "reduced"), [(64, 8), (192, 16), (320, 24), (2048, 128)])
def test_gates_are_rounded_as_timm_rounds_them(channels, reduced):
    """timm's make_divisible(channels / 16, 8, round_limit=0), by hand."""
    assert SqueezeExcite(channels).reduce.out_channels == reduced


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("resnet18", {}),
        ("seresnet50", {}),
        ("ecaresnet50d", {"output_stride": 8}),
        ("resnet20_cifar", {"activation": "gelu"}),
        ("preact_resnet110_cifar", {}),
        ("fast_resnet8_cifar", {}),
    ],
)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_maps_and_gradients_stay_in_channels_last(name, choices, precision, monkeypatch):
    """Maps in two orders of memory are added, normed and activated several times as slowly."""
    monkeypatch.setattr(convolution, "AMX", True)
    net, others = rk.build(name, **choices).to(memory_format=torch.channels_last), []

    def check(what, x):
        if not x.is_contiguous(memory_format=torch.channels_last):
            others.append(what)

    def watch(module, _, x):
        if x.ndim == 4 and x.shape[2:] != (1, 1):
            check(f"map of {type(module).__name__}", x)
            x.register_hook(lambda gradient: check(f"gradient of {type(module).__name__}", gradient))

    for module in net.modules():
        if not isinstance(module, nn.ReLU):  # in place
            module.register_forward_hook(watch)
    x = torch.randn(12, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        y = net(x)
    y.square().sum().backward()
    assert not others


def test_names():
    assert rk.variants("resnext50*") == ["resnext50_32x4d"]
    assert rk.variants("plain*") == ["plain34", "plain56_cifar"]
    assert {row.shortcut for row in plan(spec("plain_resnext50_32x4d"))} == {"none"}
    assert spec("resnet18").num_classes == 1000
    assert spec("resnet20_cifar").num_classes == 10
    assert [f.name for f in rk.build("resnet18").feature_info] == ["stem.convs", *(f"stages.{i}" for i in range(4))]


def test_summary_folds_repeats(capsys):
    rk.build("resnet50").summary()
    table = capsys.readouterr().out
    assert "stages.2.1 x5" in table
    assert "25,557,032 parameters" in table and "4.089 G MACs" in table
    assert len(table.splitlines()) < 20


def test_images_that_are_too_small_have_no_costs():
    net = rk.build("resnet18", pool_padding="none")
    net.image_size = (4, 4)
    with pytest.raises(rk.ResnetkitError, match="resnet18 takes no image of 4x4"):
        complexity(net)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_networks_are_exported_for_images_of_any_size(order):
    net = rk.build("resnet20_cifar", attention="se").eval().to(memory_format=order)
    sizes = ({2: 4 * torch.export.Dim("height", min=8), 3: 4 * torch.export.Dim("width", min=8)},)  # it strides twice
    image = torch.randn(2, 3, 64, 64).contiguous(memory_format=order)
    exported = torch.export.export(net, (image,), dynamic_shapes=sizes)
    x = torch.randn(2, 3, 96, 64).contiguous(memory_format=order)
    torch.testing.assert_close(exported.module()(x), net(x))


def test_network_is_traceable_and_scripts_nothing():
    net = rk.build("resnet20_cifar").eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 32, 32),))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(exported.module()(x), net(x))
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())
