"""The fast tile in aihwkit's layers, and what it refuses."""

import numpy as np
import pytest
import torch
from aihwkit.exceptions import TileError
from aihwkit.nn import AnalogConv2d, AnalogLinear, AnalogLinearMapped, AnalogSequential
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import (
    FloatingPointRPUConfig,
    InferenceRPUConfig,
    SingleRPUConfig,
    UnitCellRPUConfig,
)
from aihwkit.simulator.configs.compounds import TransferCompound, VectorUnitCell
from aihwkit.simulator.configs.devices import IdealDevice
from aihwkit.simulator.parameters.enums import (
    BoundManagementType,
    NoiseManagementType,
    PulseType,
    WeightNoiseType,
)
from aihwkit.simulator.parameters.io import IOParameters
from aihwkit.simulator.parameters.training import UpdateParameters
from aihwkit.simulator.presets.configs import TTv2ReRamSBPreset
from aihwkit.simulator.presets.devices import ReRamArrayHfO2PresetDevice
from aihwkit.simulator.presets.utils import PresetIOParameters
from aihwkit.simulator.tiles.analog import AnalogTile
from torch import nn

from analogtl.fastsim import (
    FastTile,
    UnsupportedConfig,
    fast_rpu_config,
    unsupported_reason,
)
from analogtl.fastsim.cases import compound_config, mixed_config


def silent(**values):
    """A configuration without noise in its products."""
    config = compound_config()
    config.forward = PresetIOParameters(out_noise=0.0, **values)
    config.backward = PresetIOParameters(out_noise=0.0, **values)
    return config


def pair(config, out_size=9, in_size=14, **kwargs):
    return (
        AnalogTile(out_size, in_size, config, **kwargs),
        FastTile(out_size, in_size, fast_rpu_config(config, seed=1), **kwargs),
    )


def tiles_of(model):
    return [m for m in model.modules() if isinstance(m, FastTile)]


# -- products ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "io",
    [
        {},
        {"is_perfect": True, "out_scale": 0.5},
        {"out_bound": 0.8},
        {"out_bound": 0.8, "bound_management": BoundManagementType.NONE},
        {"out_bound": 0.05, "max_bm_factor": 3},
        {"inp_res": -1.0, "out_res": -1.0, "out_bound": 0.0},
        {"inp_res": 30, "out_res": 60},
        {"noise_management": NoiseManagementType.NONE, "inp_bound": 0.7},
        {"noise_management": NoiseManagementType.MAX, "nm_thres": 1.1},
        {"noise_management": NoiseManagementType.CONSTANT, "nm_thres": 1.3},
    ],
)
def test_without_noise_products_are_those_of_aihwkit(io):
    stock, fast = pair(silent(**io))
    generator = torch.Generator().manual_seed(0)
    weights = 0.3 * torch.randn(9, 14, generator=generator)
    x = torch.randn(40, 14, generator=generator) + 0.2
    d = torch.randn(40, 9, generator=generator) + 0.2
    x[3], d[4] = 0.0, 0.0
    for tile in (stock, fast):
        tile.tile.set_weights(weights)
    for direction, rows in (("forward", x), ("backward", d)):
        a, b = (getattr(t.tile, direction)(rows, False) for t in (stock, fast))
        # A sum rounded otherwise may fall on the other side of a converter's step, rarely.
        close = torch.isclose(a, b, rtol=1e-5, atol=1e-6)
        assert close.float().mean() > 0.99
        step = 0.0 if io.get("is_perfect") else 2.5 * 2 * 20.0 / 510 * float(rows.abs().max())
        assert (a - b).abs().max() <= step + 1e-6


@pytest.mark.parametrize("inp_noise", [0.0, 0.1])
def test_which_zero_vectors_are_silent_is_as_in_aihwkit(inp_noise):
    config = compound_config()
    config.forward = config.backward = IOParameters(inp_noise=inp_noise, out_noise=0.1)
    silent_ones = []
    for tile in pair(config):
        tile.tile.set_weights(0.3 * torch.ones(9, 14))
        outputs = (
            tile.tile.forward(torch.zeros(3, 14), False),
            tile.tile.backward(torch.zeros(3, 9), False),
        )
        silent_ones.append([not out.any() for out in outputs])
    assert silent_ones == [[inp_noise == 0.0, True]] * 2


def test_the_digital_scale_counts_in_perfect_products_too():
    config = silent(is_perfect=True)
    config.mapping.weight_scaling_omega = 0.6
    generator = torch.Generator().manual_seed(0)
    weights, x = 3 * torch.randn(9, 14, generator=generator), torch.randn(5, 14)
    layer = AnalogLinear(14, 9, bias=False, rpu_config=fast_rpu_config(config, seed=1))
    layer.set_weights(weights)
    inputs = x.clone().requires_grad_()
    out = layer(inputs)
    out.sum().backward()
    held = layer.get_weights()[0]
    assert float(layer.analog_module.get_scales()) > 1.5
    torch.testing.assert_close(out.detach(), x @ held.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inputs.grad, held.sum(0).expand(5, 14), rtol=1e-4, atol=1e-4)


def layer_results(config, weights, x, bias=None):
    """Output and gradients of a layer on either engine."""
    results = []
    for own in (config, fast_rpu_config(config, seed=1)):
        layer = AnalogLinear(14, 9, bias=bias is not None, rpu_config=own)
        layer.set_weights(weights, bias)
        inputs = x.clone().requires_grad_()
        out = layer(inputs)
        (out**2).sum().backward()
        gradients = [p.grad for n, p in layer.named_parameters() if n.endswith("bias")]
        results.append([out.detach(), inputs.grad, *gradients])
        AnalogSGD(layer.parameters(), lr=0.01).step()
    return results


def test_a_layer_has_aihwkits_gradients_also_where_the_output_is_clipped():
    config = silent(out_bound=0.6, bound_management=BoundManagementType.NONE)
    config.mapping.weight_scaling_omega = 0.6
    generator = torch.Generator().manual_seed(0)
    weights, x = torch.randn(9, 14, generator=generator), torch.randn(30, 14, generator=generator)
    stock, fast = layer_results(config, weights, x, bias=torch.arange(9.0))
    assert (stock[0] - torch.arange(9.0)).abs().max() < 3.5 * 9  # the bound is at work
    for a, b in zip(stock, fast, strict=True):
        assert torch.isclose(a, b, rtol=1e-3, atol=1e-3).float().mean() > 0.98


@pytest.mark.parametrize("shape", [(14,), (5, 14), (2, 3, 14), (2, 3, 4, 14)])
def test_inputs_of_any_dimension(shape):
    _, fast = pair(silent())
    fast.tile.set_weights(0.1 * torch.randn(9, 14))
    x = torch.randn(*shape)
    out = fast.tile.forward(x)
    assert out.shape == (*shape[:-1], 9)
    assert fast.tile.backward(out).shape == shape
    fast.tile.update(x, out)


def test_transposed_inputs_and_an_analog_bias():
    config = silent()
    config.mapping.digital_bias = False
    stock, fast = pair(config, bias=True)
    weights = 0.2 * torch.randn(9, 15, generator=torch.Generator().manual_seed(0))
    x = torch.randn(6, 14, generator=torch.Generator().manual_seed(1))
    for tile in (stock, fast):
        tile.tile.set_weights(weights)
    a, b = (t.tile.forward(x.T.contiguous(), True, True, True) for t in (stock, fast))
    assert a.shape == b.shape == (9, 6)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    a, b = (t.tile.backward(a, True, True, True) for t in (stock, fast))
    assert b.shape == (14, 6)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    fast.tile.update(x, torch.randn(6, 9), True)
    out = fast(x)
    assert out.shape == (6, 9)


def test_wrong_shapes_and_types_are_errors():
    _, fast = pair(silent())
    with pytest.raises(Exception, match="14"):
        fast.tile.forward(torch.zeros(3, 13))
    with pytest.raises(Exception, match="float32"):
        fast.tile.forward(torch.zeros(3, 14, dtype=torch.float64))
    with pytest.raises(Exception, match="vectors"):
        fast.tile.update(torch.zeros(3, 14), torch.zeros(4, 9))
    with pytest.raises(Exception, match=r"\[9,14\]"):
        fast.tile.set_weights(torch.zeros(14, 9))
    with pytest.raises(Exception, match="CPU"):
        fast.cuda()


def test_nothing_happens_without_a_learning_rate_or_without_vectors():
    _, fast = pair(compound_config())
    before = fast.tile.state()
    fast.tile.set_learning_rate(0.0)
    fast.tile.update(torch.randn(3, 14), torch.randn(3, 9))
    fast.tile.set_learning_rate(before["learning_rate"])
    fast.tile.update(torch.zeros(0, 14), torch.zeros(0, 9))
    after = fast.tile.state()
    arrays = [name for name, value in before.items() if torch.is_tensor(value)]
    assert all(torch.equal(before[name], after[name]) for name in arrays)
    assert fast.tile.forward(torch.zeros(0, 14)).shape == (0, 9)


# -- layers -----------------------------------------------------------------------------------


def train(model, x, steps=30, lr=0.1):
    optimizer = AnalogSGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_layers_of_all_kinds_train():
    config = compound_config(transfer_lr=3.0)
    config.mapping.weight_scaling_omega = 0.6
    config.mapping.max_input_size = config.mapping.max_output_size = 20
    torch.manual_seed(0)
    model = AnalogSequential(
        AnalogConv2d(2, 4, 3, rpu_config=fast_rpu_config(config, seed=1)),
        nn.Tanh(),
        nn.Flatten(),
        AnalogLinear(64, 33, rpu_config=fast_rpu_config(config, seed=2)),
        nn.Tanh(),
        AnalogLinearMapped(33, 5, rpu_config=fast_rpu_config(config, seed=3)),
    )
    tiles = tiles_of(model)
    assert len(tiles) > 8
    before = [t.tile.get_weights() for t in tiles]
    losses = train(model, torch.randn(8, 2, 6, 6))
    assert np.isfinite(losses).all()
    assert any(not torch.equal(a, t.tile.get_weights()) for a, t in zip(before, tiles, strict=True))


@pytest.mark.parametrize(
    "mapping",
    [
        {"weight_scaling_omega": 0.6, "weight_scaling_columnwise": True},
        {"weight_scaling_omega": 0.6, "learn_out_scaling": True},
        {"weight_scaling_omega": 0.6, "weight_scaling_lr_compensation": True},
        {},
    ],
)
def test_every_digital_scale_works_as_in_aihwkit(mapping):
    config = silent()
    for key, value in mapping.items():
        setattr(config.mapping, key, value)
    generator = torch.Generator().manual_seed(0)
    weights, x = 3 * torch.randn(9, 14, generator=generator), torch.randn(20, 14)
    for a, b in zip(*layer_results(config, weights, x), strict=True):
        assert torch.isclose(a, b, rtol=1e-3, atol=1e-3).float().mean() > 0.98


def test_an_input_range_that_is_learned():
    config = silent()
    config.pre_post.input_range.enable = True
    layer = AnalogLinear(14, 9, rpu_config=fast_rpu_config(config, seed=1))
    assert np.isfinite(train(layer, torch.randn(10, 14), steps=3)).all()


def test_resetting_columns_concerns_those_of_the_fast_array():
    _, fast = pair(compound_config(device=ReRamArrayHfO2PresetDevice))
    fast.tile.set_learning_rate(0.1)
    fast.tile.update(torch.randn(100, 14), torch.randn(100, 9))
    before = fast.get_hidden_parameters()
    fast.reset_columns(3, 2)
    after = fast.get_hidden_parameters()
    moved = (before["persistent_weights_0"] != after["persistent_weights_0"]).any(0)
    assert moved.nonzero().ravel().tolist() == [3, 4]
    bias = before["reset_bias_0"][:, 3:5].clamp(before["min_bound_0"][:, 3:5],
                                                before["max_bound_0"][:, 3:5])  # fmt: skip
    torch.testing.assert_close(after["persistent_weights_0"][:, 3:5], bias, atol=0.06, rtol=0)
    assert torch.equal(before["hidden_weights_1"], after["hidden_weights_1"])
    fast.decay_weights()
    fast.diffuse_weights()
    fast.drift_weights()
    again = fast.get_hidden_parameters()
    within = after["persistent_weights_1"].clamp(after["min_bound_1"], after["max_bound_1"])
    assert torch.equal(again["persistent_weights_1"], within)  # as aihwkit: no decay, but bounds
    assert not torch.equal(again["hidden_weights_1"], after["hidden_weights_1"])
    fast.tile.set_weights_uniform_random(-0.1, 0.1)
    assert fast.tile.get_weights().abs().max() <= 0.1


# -- what is not covered ----------------------------------------------------------------------


def changed(**values):
    config = compound_config()
    for path, value in values.items():
        *where, name = path.split("__")
        target = config
        for part in where:
            target = target[int(part)] if part.isdigit() else getattr(target, part)
        assert hasattr(target, name)
        setattr(target, name, value)
    return config


REFUSED = {
    "gamma_vec": changed(device__gamma_vec=[1.0, 0.0]),
    "transfer_columns": changed(device__transfer_columns=False),
    "n_reads_per_transfer": changed(device__n_reads_per_transfer=2),
    "random_selection": changed(device__random_selection=True),
    "with_reset_prob": changed(device__with_reset_prob=0.1),
    "transfer_every": changed(device__transfer_every=-1.0),
    "no_self_transfer": changed(device__no_self_transfer=False),
    "drift": changed(device__unit_cell_devices__1__drift__nu=0.1),
    "class VectorUnitCell": compound_config(
        slow_device=lambda: VectorUnitCell(unit_cell_devices=[ReRamArrayHfO2PresetDevice()])
    ),
    "update.pulse_type MeanCount": changed(update__pulse_type=PulseType.MEAN_COUNT),
    "transfer_update": changed(device__transfer_update__res=0.1),
    "forward.ir_drop": changed(forward__ir_drop=0.1),
    "backward.w_noise": changed(backward__w_noise=0.1,
                                backward__w_noise_type=WeightNoiseType.ADDITIVE_CONSTANT),
    "forward.noise_management": changed(
        forward__noise_management=NoiseManagementType.AVERAGE_ABS_MAX),
    "forward.bound_management": changed(
        forward__bound_management=BoundManagementType.ITERATIVE_WORST_CASE),
    "rounding of forward": changed(forward__out_sto_round=True),
    "transfer_forward.inp_noise": changed(
        device__transfer_forward=IOParameters(inp_noise=0.1)),
    "3 unit_cell_devices": UnitCellRPUConfig(device=TransferCompound(
        unit_cell_devices=[ReRamArrayHfO2PresetDevice() for _ in range(3)])),
    "IdealDevice": SingleRPUConfig(device=IdealDevice()),
    "n_x_bins": mixed_config(n_x_bins=1),
    "granularity": mixed_config(granularity=-0.1),
    "resolution of update": mixed_config(update=UpdateParameters(res=0.1)),
    "FloatingPointRPUConfig": FloatingPointRPUConfig(),
    "InferenceRPUConfig": InferenceRPUConfig(),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_covered_is_refused_in_one_line(what):
    reason = unsupported_reason(REFUSED[what])
    assert what in reason
    assert "\n" not in reason
    with pytest.raises(UnsupportedConfig) as error:
        fast_rpu_config(REFUSED[what], seed=0)
    assert reason in str(error.value)


def test_what_is_covered_is_not_refused():
    assert unsupported_reason(compound_config()) is None
    assert unsupported_reason(TTv2ReRamSBPreset()) is None
    assert unsupported_reason(fast_rpu_config(compound_config(), seed=0)) is None


def test_rows_that_do_not_lie_together_are_refused() -> None:
    tile = FastTile(4, 6, fast_rpu_config(compound_config(), seed=1)).tile
    with pytest.raises(TileError):
        tile.update_rows(torch.zeros(6, 5).T, torch.zeros(5, 4))
