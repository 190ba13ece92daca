"""A plain aihwkit script on the fast engine: handwritten digits, c-TTv2 on ECRAM devices.

    python experiments/examples/plain_aihwkit.py [--engine fast|converted|aihwkit] [--epochs 10]

`fast` makes new layers for the fast engine, `converted` moves a network that is analog already onto
it, `aihwkit` leaves both lines out. All three reach about the same error; how long each takes is
printed.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from aihwkit.nn import AnalogLinear, AnalogSequential
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import UnitCellRPUConfig
from aihwkit.simulator.configs.compounds import ChoppedTransferCompound
from aihwkit.simulator.presets.devices import EcRamPresetDevice
from sklearn.datasets import load_digits
from torch import nn

from analogtl.fastsim import fast_rpu_config, to_fast, use_threads


def configuration():
    """c-TTv2, as aihwkit has it."""
    compound = ChoppedTransferCompound(
        unit_cell_devices=[EcRamPresetDevice(), EcRamPresetDevice()],
        transfer_every=1.0,
        units_in_mbatch=False,
        auto_granularity=10.0,
        auto_scale=True,
        in_chop_prob=0.1,
    )
    config = UnitCellRPUConfig(device=compound)
    config.mapping.weight_scaling_omega = 0.6
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("fast", "converted", "aihwkit"), default="fast")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    x = x.float() / 16
    config = configuration()
    if arguments.engine == "fast":
        config = fast_rpu_config(config, seed=1)  # the line for new layers
    model = AnalogSequential(
        AnalogLinear(64, 128, rpu_config=config),
        nn.ReLU(),
        AnalogLinear(128, 10, rpu_config=config),
    )
    if arguments.engine == "converted":
        model = to_fast(model, seed=1)  # the line for a model that is analog already
    use_threads(arguments.threads)
    optimizer = AnalogSGD(model.parameters(), lr=0.2)
    optimizer.regroup_param_groups(model)
    began = time.perf_counter()
    for epoch in range(arguments.epochs):
        model.train()
        for batch in torch.randperm(1500).split(20):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            wrong = (model.eval()(x[1500:]).argmax(1) != y[1500:]).float().mean()
        spent = time.perf_counter() - began
        print(f"epoch {epoch + 1}: test error {100 * wrong:.1f} %, {spent:.1f} s", flush=True)


if __name__ == "__main__":
    main()
