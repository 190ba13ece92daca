"""Low-rank adapters beside layers: what they compute, where they start, and what is refused."""

from collections import OrderedDict

import pytest
import torch
from told import problems_of
from torch import nn

from analogtl.config.arrays import Analog, Convert
from analogtl.config.training import Lora
from analogtl.crossbar.convert import analog_tiles, programmed_weights, to_analog
from analogtl.crossbar.lora import AdaptedLayer, add_adapters
from analogtl.crossbar.saved import digital_weights
from analogtl.crossbar.survey import survey
from analogtl.errors import ExperimentError

EXAMPLE = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))


class Narrow(nn.Linear):
    """A linear layer of a class of its own."""


def network(kind=nn.Linear):
    torch.manual_seed(0)
    layers = {"first": kind(6, 5), "act": nn.ReLU(), "second": nn.Linear(5, 4)}
    return nn.Sequential(OrderedDict(layers, head=nn.Linear(4, 2)))


def adapted(on_arrays=True, kind=nn.Linear, **lora):
    model = network(kind)
    found = add_adapters(model, Lora(**lora), survey(model, EXAMPLE), ["head"], on_arrays=on_arrays)
    return model, found


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 5), (3, 6)),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, padding_mode="reflect"), (2, 3, 9, 9)),
        (nn.Conv1d(3, 5, 3, dilation=2), (2, 3, 9)),
    ],
)
def test_an_adapter_adds_a_product_of_low_rank_to_the_weight(layer, shape):
    x = torch.randn(shape)
    one = AdaptedLayer(layer, Lora(rank=2, alpha=3.0))
    torch.testing.assert_close(one(x), layer(x))
    assert one.lora_A.weight.std() > 0
    nn.init.normal_(one.lora_B.weight)
    a, b = one.lora_A.weight.flatten(1), one.lora_B.weight.flatten(1)
    assert (a.shape[0], b.shape[1]) == (2, 2)
    with torch.no_grad():
        expected = layer(x)
        layer.weight += 3 / 2 * (b @ a).view(layer.weight.shape)
        merged = layer(x)
    assert not torch.allclose(expected, merged, atol=1e-3)
    layer.weight.data -= 3 / 2 * (b @ a).view(layer.weight.shape).detach()
    torch.testing.assert_close(one(x), merged, rtol=1e-4, atol=1e-5)


def test_a_layer_of_a_class_of_its_own_has_one_too():
    model, _ = adapted(kind=Narrow)
    assert isinstance(model.first.lora_A, Narrow)
    torch.testing.assert_close(model(EXAMPLE), network(Narrow)(EXAMPLE))


def test_the_base_is_on_the_same_devices_as_without_adapters():
    plain = to_analog(network(), Analog(), Convert(), seed=5, example=EXAMPLE)
    before = programmed_weights(plain.model)
    for on_arrays in (True, False):
        model, adapters = adapted(on_arrays)
        made = to_analog(model, Analog(), Convert(), seed=5, example=EXAMPLE, adapters=adapters)
        after = programmed_weights(made.model)
        for name in ("first", "second"):
            assert torch.equal(before[name][0], after[name][0])
        hidden = [next(analog_tiles(net.first)).get_hidden_parameters()
                  for net in (plain.model, made.model)]  # fmt: skip
        assert all(torch.equal(hidden[0][key], hidden[1][key]) for key in hidden[0])
        assert ("first.lora_A" in after, "head" in after) == (on_arrays, on_arrays)


@pytest.mark.parametrize(
    ("device", "zero", "clipped"),
    [
        ({"preset": "SoftBoundsDevice"}, True, (0, 0.3)),
        # All of B can go one way only, and half of A is lost.
        ({"preset": "SoftBoundsDevice", "w_min": 0.0}, True, (0.3, 0.8)),
        ({"preset": "ReRamArrayHfO2PresetDevice", "apply_write_noise_on_set": True}, False, None),
    ],
)
def test_b_starts_at_zero_on_every_device_that_is_written_without_noise(device, zero, clipped):
    model, adapters = adapted()
    analog = Analog(device=device)
    found = to_analog(model, analog, Convert(), seed=5, example=EXAMPLE, adapters=adapters)
    table = {row["layer"]: row for row in found.layers}
    weights = programmed_weights(found.model)["first.lora_B"][0]
    assert (not weights.any()) == zero
    assert table["first.lora_B"]["relative_error"] is None
    if clipped:
        assert table["first.lora_B"]["share_clipped"] == 0
        assert clipped[0] <= table["first.lora_A"]["share_clipped"] <= clipped[1]


@pytest.mark.parametrize(
    ("lora", "key", "word"),
    [
        ({"rank": 5}, "lora.rank", "second"),
        ({"targets": ["nothing*"]}, "lora.targets", "first, second"),
        ({"targets": ["head"]}, "lora.targets", "head"),
        ({"targets": ["first", "seconds"]}, "lora.targets", "'seconds'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(lora, key, word):
    (line,) = problems_of(adapted, **lora)
    assert line.startswith(key)
    assert word in line


def test_a_layer_that_no_array_can_hold_is_named_with_the_reason():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(2, 4))
    fit = survey(model, torch.zeros(1, 2, 3, 3))
    with pytest.raises(ExperimentError, match="groups"):
        add_adapters(model, Lora(rank=1, targets=["0"]), fit, [], on_arrays=True)
    with pytest.raises(ExperimentError, match=r"^lora: .*groups"):
        add_adapters(model, Lora(rank=1), fit, ["2"], on_arrays=True)


@pytest.mark.parametrize(("on_arrays", "base"), [(True, "arrays"), (True, "digital"), (False, "")])
def test_what_is_saved_has_the_adapter_in_the_weight(on_arrays, base):
    model, adapters = adapted(on_arrays, **({"base": base} if base else {}))
    for name in ("first", "second"):
        nn.init.normal_(model.get_submodule(name).lora_B.weight)
    perfect = Analog(
        forward={"is_perfect": True}, device={"preset": "SoftBoundsDevice", "w_max_dtod": 0.0,
                                              "w_min_dtod": 0.0, "dw_min_dtod": 0.0}
    )  # fmt: skip
    made = to_analog(model, perfect, Convert(), seed=5, example=EXAMPLE, adapters=adapters)
    saved = digital_weights(made.model)
    plain = network()
    assert saved.keys() == plain.state_dict().keys()
    plain.load_state_dict(saved)
    torch.testing.assert_close(plain(EXAMPLE), made.model.eval()(EXAMPLE), rtol=1e-3, atol=1e-3)
