"""Models: the published sizes, what attention sees, and that arrays can take every kind."""

import math
from typing import Any

import pytest
import told
import torch
import torch.nn.functional as F
from aihwkit.optim import AnalogSGD
from torch import nn

from analogtl.config.arrays import Analog, Convert
from analogtl.crossbar.convert import (
    programmed_weights,
    share_changed,
    to_analog,
)
from analogtl.crossbar.survey import survey
from analogtl.models.build import build_model
from analogtl.models.swin import WindowAttention

# A small model of each kind, and the image sizes it must build at.
KINDS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "convolutional": ("resnet18", {"channels": (8, 8, 8, 8)}, (8, 32)),
    "depthwise": (
        "convnext_atto",
        {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "patch_size": 1},
        (8, 32),
    ),
    "vit": (
        "vit_tiny_patch16_224",
        {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
        (8, 16, 32),
    ),
    "beit": (
        "beit_base_patch16_224",
        {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
        (8,),
    ),
    "timm's swin": (
        "swin_tiny_patch4_window7_224",
        {"patch_size": 2, "window_size": 2, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2)},
        (8, 32),
    ),
    "swin_digits": ("swin_digits", {}, (8,)),
    "mlp_digits": ("mlp_digits", {}, (8,)),
}


def build(name: str = "swin_digits", **changes: Any) -> nn.Module:
    sizes = {"n_classes": 5, "image_size": 8, "in_channels": 1}
    return build_model(name, **{**sizes, **changes})


def problems_of(*args: Any, **kwargs: Any) -> list[str]:
    problems = told.problems_of(build, *args, **kwargs)
    assert not any("\n" in problem for problem in problems)
    return problems


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("n_classes", "published"), [(2, 26_591_906), (5, 26_594_213)])
def test_the_papers_model_has_the_published_number_of_parameters(
    n_classes: int, published: int
) -> None:
    model = build("swin_cifar_tiny", n_classes=n_classes, image_size=32, in_channels=3)
    tables = sum(p.numel() for name, p in model.named_parameters() if "position_table" in name)
    assert tables == 588 == 12 * 49
    assert count(model) == published + tables
    # every matrix is the weight of a plain Linear, so that an array can hold it
    matrices = {id(p) for p in model.parameters() if p.ndim > 1}
    assert matrices == {id(m.weight) for m in model.modules() if type(m) is nn.Linear}
    assert tokens_per_stage(model) == [256, 64, 16, 16]


def tokens_per_stage(model: nn.Module) -> list[int]:
    seen: list[int] = []
    hooks = [
        stage.register_forward_hook(lambda *a: seen.append(a[2].shape[1] * a[2].shape[2]))
        for stage in model.stages
    ]
    model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return seen


def test_sizes_of_the_smaller_models() -> None:
    desk = build("swin_cifar_desk", n_classes=10, image_size=32, in_channels=3)
    assert count(desk) == 208_862
    assert tokens_per_stage(desk) == [64, 16]
    assert set(desk.state_dict()) == {name for name, _ in desk.named_parameters()}
    assert count(build("swin_digits")) == 23_673
    assert count(build("mlp_digits")) == 64 * 64 + 64 + 64 * 32 + 32 + 32 * 5 + 5


def naive_attention(layer: WindowAttention, x_BHWC: torch.Tensor) -> torch.Tensor:
    """Window attention token by token, from its definition."""
    batch, side, _, _ = x_BHWC.shape
    window, shift, heads = layer.window, layer.shift, layer.heads
    head_dim = layer.proj.in_features // heads
    q, k, v = layer.qkv(x_BHWC).view(batch, side, side, 3, heads, head_dim).unbind(3)
    table = layer.position_table.view(2 * window - 1, 2 * window - 1)

    def block(i: int) -> int:
        # Which block of tokens a row or column is in: the grid is moved by the shift, and the
        # parts at the borders are blocks of their own.
        return (i - shift) // window

    out = torch.zeros(batch, side, side, heads, head_dim)
    tokens = [(y, x) for y in range(side) for x in range(side)]
    for y, x in tokens:
        partners = [(u, t) for u, t in tokens if (block(u), block(t)) == (block(y), block(x))]
        score = [
            (q[:, y, x] * k[:, u, t]).sum(-1) / math.sqrt(head_dim)
            + table[u - y + window - 1, t - x + window - 1]
            for u, t in partners
        ]
        weight = torch.stack(score, dim=-1).softmax(-1)[..., None]
        value = torch.stack([v[:, u, t] for u, t in partners], dim=-2)
        out[:, y, x] = (weight * value).sum(-2)
    return layer.proj(out.flatten(3))


@pytest.mark.parametrize(
    ("resolution", "window", "shifted"),
    [(8, 4, False), (8, 4, True), (4, 4, True), (6, 3, True), (2, 4, True), (4, 2, True)],
)
def test_window_attention_is_what_its_definition_says(
    resolution: int, window: int, shifted: bool
) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(
        dim=6, heads=2, head_dim=3, resolution=resolution, window=window, shifted=shifted
    )
    nn.init.normal_(layer.position_table)
    x = torch.randn(2, resolution, resolution, 6)
    torch.testing.assert_close(layer(x), naive_attention(layer, x))
    assert (layer.shift > 0) == (shifted and window < resolution)


def test_refused_arguments_draw_no_numbers() -> None:
    """A convolutional model is first asked to take an image size, which must leave no trace."""
    import timm

    torch.manual_seed(0)
    direct = timm.create_model("resnet18", num_classes=5, in_chans=1, channels=(8, 8, 8, 8))
    torch.manual_seed(0)
    built = build("resnet18", kwargs={"channels": (8, 8, 8, 8)})
    for ours, theirs in zip(built.parameters(), direct.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, buffer in built.named_buffers():  # nor has the image of zeros left any
        assert torch.equal(buffer, direct.get_buffer(name))
    assert built.training


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_replaced_and_the_rest_kept(kind: str) -> None:
    name, kwargs, sizes = KINDS[kind]
    for size in sizes:
        model = build(name, image_size=size, kwargs=kwargs)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.reset_classifier(3)
        after = model.state_dict()
        other = {key for key, value in before.items() if value.shape != after[key].shape}
        assert len(other) == 2  # the head's weight and bias
        assert all(torch.equal(before[key], after[key]) for key in before.keys() - other)
        assert model(torch.zeros(2, 1, size, size)).shape == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_kind_converts_to_arrays_and_trains(kind: str) -> None:
    torch.manual_seed(0)
    name, kwargs, (size, *_) = KINDS[kind]
    x, y = torch.randn(4, 1, size, size), torch.tensor([0, 1, 2, 3])
    model = build(name, image_size=size, kwargs=kwargs)
    settings = Analog(algorithm="sgd", device={"preset": "ConstantStepDevice"})
    analog = to_analog(model, settings, Convert(), seed=0, example=x)
    assert len(analog.layers) >= 3
    optimizer = AnalogSGD(analog.model.parameters(), lr=0.5)
    optimizer.regroup_param_groups(analog.model)
    before = programmed_weights(analog.model)
    F.cross_entropy(analog.model(x), y).backward()
    optimizer.step()
    assert torch.isfinite(F.cross_entropy(analog.model(x), y))
    assert share_changed(before, programmed_weights(analog.model))[0] > 0


def test_layers_that_no_array_can_hold_are_named() -> None:
    def digital(name: str, kwargs: dict[str, Any]) -> set[str]:
        found = survey(build(name, kwargs=kwargs), torch.zeros(1, 1, 8, 8))
        return {part.name for part in found.digital if part.weights}

    found = {kind: digital(name, kwargs) for kind, (name, kwargs, _) in KINDS.items()}
    assert found.pop("depthwise") == {f"stages.{i}.blocks.0.conv_dw" for i in range(4)}
    assert found.pop("beit") == {f"blocks.{i}.attn.qkv" for i in range(2)}
    assert not any(found.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swin_cifr_tiny", "'swin_cifar_tiny'"),
        ("restnet18", "'resnet18'"),
        ("qqqqqqqq", "swin_cifar_tiny, swin_cifar_desk, swin_digits, mlp_digits"),
        ("hf-hub:someone/something", "unknown"),
        ("", "unknown"),
    ],
)
def test_unknown_models(name: str, expected: str) -> None:
    (problem,) = problems_of(name)
    assert problem.startswith(f"model {name!r}: unknown")
    assert expected in problem


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("swin_digits", {"depth": 2}, "'depth'"),
        ("mlp_digits", {"zzz": 2}, "'zzz'"),
        # what timm's own constructors say
        ("resnet18", {"layer": 3}, "'layer'"),
        ("vit_tiny_patch16_224", {"patchsize": 4}, "'patchsize'"),
        ("mixer_s32_224", {"patch_size": 4}, "'patch_size'"),
        ("vit_tiny_patch16_224", {}, "1 x 8 x 8"),
        ("vgg11", {"mlp_ratio": 0.02}, "too small"),
        ("swin_digits", {"window_size": 3}, "window_size: 3 "),
        ("swin_digits", {"downscaling": [3, 1]}, "downscaling: 3 "),
        ("swin_digits", {"depths": [2]}, "one entry"),
        ("swin_digits", {"embed_dim": -4}, "1 x 8 x 8"),
    ],
)
def test_arguments_that_do_not_fit(name: str, kwargs: dict[str, Any], expected: str) -> None:
    (problem,) = problems_of(name, kwargs=kwargs)
    assert problem.startswith(f"model {name}: ")
    assert expected in problem


def test_forbidden_arguments_are_reported_at_once() -> None:
    forbidden = ("img_size", "in_chans", "num_classes", "pretrained", "checkpoint_path")
    for name in ("swin_digits", "resnet18"):
        problems = problems_of(name, kwargs=dict.fromkeys(forbidden, 8))
        assert len(problems) == len(forbidden)
        assert all(key in "".join(problems) for key in forbidden)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 8, 8\) expected, not \(1, 16, 16\)"):
        build("swin_digits")(torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "resnet18.nonsense", "swin_digits.best"])
def test_a_tag_that_means_published_weights_is_refused(name: str) -> None:
    (problem,) = problems_of(name)
    assert problem.startswith("model.architecture: ")
    assert name in problem
