"""A crossbar tile whose arrays a rule drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from aihwkit.exceptions import TileError
from numba.core.errors import NumbaError
from torch import Tensor

from analogtl.fastsim import layout as k
from analogtl.fastsim.config import FastRPUConfig
from analogtl.fastsim.kernels import transfer_period
from analogtl.fastsim.layout import Array
from analogtl.fastsim.pulsed import PulsedTile
from analogtl.fastsim.rules.contract import load_rule
from analogtl.fastsim.rules.driver import NO_SUCH_ARRAY, State, driver_of
from analogtl.fastsim.streams import FLUSH
from analogtl.fastsim.tile import FastTile


class RuleSimulatorTile(PulsedTile):
    """State and operations of a tile of two or more arrays.

    As `PulsedTile`, whose A is the first array and whose C the last; the arguments are its.
    """

    def __init__(
        self,
        x_size: int,
        d_size: int,
        rpu_config: FastRPUConfig,
        number: int = 0,
        draw: bool = True,
    ) -> None:
        compound = rpu_config.device
        self.rule = load_rule(compound.rule)
        self.array_names = self.rule.array_names(compound.values)
        self._values = {**self.rule.parameters, **compound.values}
        self._seen_is_old = True
        super().__init__(x_size, d_size, rpu_config, number, draw)

    def _prepare(self) -> None:
        super()._prepare()
        x_size = self.x_size
        others, rows = len(self.array_names) - 1, self.cells.weight.shape[1]
        self.arrays = State(
            fast=self.cells.fast,
            fast_more=self.cells.fast_more,
            slow=np.zeros((others, *self.cells.slow.shape), np.float32),
            weights=np.zeros((others, *self.cells.weight.shape), np.float32),
            slow_more=np.zeros((others, *self.cells.slow_more.shape), np.float32),
            curves=self.cells.curves,
            cell=np.zeros((x_size, len(self.rule.cell_kind._fields) * rows), np.float32),
            column=np.zeros((x_size, len(self.rule.column_kind._fields)), np.float32),
            seen=np.zeros((x_size, rows) if self.rule.shows_first else (1, 1), np.float32),
            turns=np.zeros((others, 2), np.int64),
        )
        self.cells = self.cells._replace(
            slow=self.arrays.slow[-1],
            weight=self.arrays.weights[-1],
            slow_more=self.arrays.slow_more[-1],
        )
        self.visible = self.cells.weight
        self._driver = driver_of(self.rule, others + 1)

    # -- the arrays -------------------------------------------------------------------------------

    def renew_spec(self) -> None:
        """Take the numbers of the configuration, with the tile's own ``dw_min``."""
        super().renew_spec()
        self._p = self.rule.numbers(
            self._values,
            in_size=float(self.x_size),
            fast_granularity=float(self.spec.fast.granularity),
            slow_granularity=float(self.spec.slow.granularity),
            desired_bl=float(self.spec.transfer_train.desired_bl),
        )
        self._every: dict[int, Array] = {}

    def names_of_arrays(self) -> list[str]:
        """Name the arrays, in the order of the devices."""
        return list(self.array_names)

    def more(self, n: int) -> Array:
        """The array of the slopes or exponents of device ``n``."""
        return self.cells.fast_more if n == 0 else self.arrays.slow_more[n - 1]

    def has_more(self, n: int) -> bool:
        """Whether the cells of device ``n`` have slopes or exponents beside bounds and steps."""
        return super().has_more(min(n, 1))

    def cells_of(self, n: int) -> Array:
        """The cells of device ``n``."""
        return self.cells.fast if n == 0 else self.arrays.slow[n - 1]

    def apparent(self, n: int, cells: Array) -> Array:
        """Copy the apparent weights of device ``n`` with these cells, ``[in, out]``."""
        if n == 0:
            return super().apparent(0, cells)
        return self.arrays.weights[n - 1][:, : self.d_size].copy()

    def put_apparent(self, n: int, weights: Array | float) -> None:
        """Set the apparent weights of device ``n`` ``[in, out]``."""
        if n == 0:
            super().put_apparent(0, weights)
        else:
            self.arrays.weights[n - 1][:, : self.d_size] = weights
            self._seen_is_old = True

    def put(self, cells: Array, field: int, values: Array | float) -> None:
        """Set one field of the cells from ``[x_size, d_size]`` or one number."""
        super().put(cells, field, values)
        self._seen_is_old = True

    def weights(self, n: int) -> Array:
        """Copy the apparent weights of array ``n``, ``[out, in]``, as they are now."""
        return self.apparent(n, self.current(n)).T.copy()

    def own(self, name: str) -> Array:
        """Copy one of the rule's numbers by its name: per cell ``[out, in]``, or per column."""
        if name in self.rule.cell:
            at = self.rule.cell.index(name) * self.cells.weight.shape[1]
            return self.arrays.cell[:, at : at + self.d_size].T.copy()
        return self.arrays.column[:, self.rule.column_kind._fields.index(name)].copy()

    # -- forward, backward, update ----------------------------------------------------------------

    def matrix(self) -> Tensor:
        """What the passes multiply with, ``[x_size, d_size]``."""
        if not self.rule.shows_first:
            return super().matrix()
        if self._seen_is_old:
            self.settle()
            if self._compiled(self._driver.see, self.arrays, self._p):
                raise TileError(f"{self.rule.text.file}: sees returns NaN")
            self._seen_is_old = False
        return torch.from_numpy(self.arrays.seen)[:, : self.d_size]

    def update_rows(self, x: Tensor, d: Tensor, divisor: float = 1.0) -> None:
        """Update with vectors ``x`` [N, in] and ``d / divisor`` [N, out]."""
        if x.shape[0] != d.shape[0]:
            raise TileError(f"{x.shape[0]} input and {d.shape[0]} gradient vectors")
        if x.shape[0] == 0 or self.learning_rate == 0.0:
            return
        self._seen_is_old = True
        self.make_room(x.shape[0])
        rates = np.float32(1.0 / divisor), np.float32(self.learning_rate)
        wrong = self._compiled(
            self._driver.update, x.numpy(), d.numpy(), *rates, self.arrays, self.ring, self.planes,
            self.counts, self.averages, self._packed_spec, self._p, self._periods(x.shape[0]),
            self.seed,
        )  # fmt: skip
        if wrong:
            what = "onto names no later array" if wrong & NO_SUCH_ARRAY else "it returns NaN"
            raise TileError(f"{self.rule.text.file}: {self.rule.text.name}: {what}")

    def _compiled(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call compiled code; where the rule does not compile, say which line does not."""
        try:
            return function(*arguments)
        except NumbaError:
            self.rule.compile_each(len(self.array_names))
            raise

    def _periods(self, n_vectors: int) -> Array:
        """Count the vectors between two reads of each array but the last."""
        if n_vectors not in self._every:
            p = self.rule.p_kind._make(self._p)
            self._every[n_vectors] = np.array(
                [
                    transfer_period(np.float32(every), self.spec.units_in_mbatch, n_vectors)
                    for every in self.rule.periods(p, len(self.array_names))
                ],
                np.int64,
            )
        return self._every[n_vectors]

    # -- weights and hidden parameters ------------------------------------------------------------

    def _program(self, target: Array) -> None:
        """Program the last array; the others' apparent weights become 0, as in aihwkit."""
        last = len(self.array_names) - 1
        self.program_device(last, target)
        self.put_apparent(0, 0.0)
        if self.spec.fast.write_noise <= 0.0:
            self.put(self.cells.fast, k.PERSISTENT, 0.0)
        for n in range(1, last):
            self._set_persistent(n, np.zeros((self.x_size, self.d_size), np.float32))
        self.arrays.turns[:, 0] = 0

    def _flush_into(self, fast: Array, ring: k.PulseRing, planes: Array) -> bool:
        """Apply the pulses that are still in the ring, if there are any; whether there were."""
        if int(self.counts[k.SLOT]) <= int(ring.start.min()):
            return False
        arrays = self.arrays._replace(fast=fast)
        self._driver.bring_to_now(
            arrays, ring, planes, self.counts, self._packed_spec, self._p, self.seed, FLUSH
        )
        return True

    def hidden_arrays(self) -> dict[str, Array]:
        """Name the rule's numbers of each cell, ``[in, out]``."""
        return {name: self.own(name).T for name in self.rule.cell}

    def set_hidden_arrays(self, given: dict[str, Array]) -> None:
        """Set what `hidden_arrays` names; the ring's pulses are gone."""
        rows = self.cells.weight.shape[1]
        for i, name in enumerate(self.rule.cell):
            self.arrays.cell[:, i * rows : i * rows + self.d_size] = given[name]
        self.ring.start[:] = self.counts[k.SLOT]

    def guard(self, width: int, sentinel: float) -> dict[str, Array]:
        """Move the rule's numbers to between guards; return the whole pieces of memory by name."""
        pieces, moved = {}, {}
        for name in ("cell", "column"):
            array = getattr(self.arrays, name)
            piece = np.full(array.size + 2 * width, sentinel, np.float32)
            pieces[name], inner = piece, piece[width : width + array.size].reshape(array.shape)
            inner[...] = array
            moved[name] = inner
        self.arrays = self.arrays._replace(**moved)
        return pieces

    # -- state ------------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, Array]:
        """Collect everything that changes, by the names that saved states have."""
        own = {"choppers", "weight", "means"}
        base = {name: a for name, a in super()._arrays().items() if name not in own}
        rule = {name: a for name, a in self.arrays._asdict().items() if name != "seen"}
        return {**base, **rule}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned.

        Raises:
            TileError: if the state is of another kind of tile.
        """
        super().load_state(state)
        self._seen_is_old = True

    def get_brief_info(self) -> str:
        """Describe the tile in one line."""
        return f"RuleTile[{self.rule.text.file}:{self.rule.text.name}]({self.d_size},{self.x_size})"


class RuleTile(FastTile):
    """An analog tile that a rule drives; made through ``fast_rpu_config``."""

    def simulator_class(self, rpu_config: FastRPUConfig) -> type[RuleSimulatorTile]:
        """Find the class of the tiles that run a rule."""
        return RuleSimulatorTile
