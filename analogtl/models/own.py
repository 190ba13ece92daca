"""Build a network of the user's own: what ``build`` in a Python file returns.

It is given the sizes of the task (of images ``n_classes``, ``image_size`` and ``in_channels``) and
what ``[model] kwargs`` holds, by name, and returns a `torch.nn.Module`, or one and the name of the
layer that is its head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from analogtl.config.network_file import line_of
from analogtl.errors import AnalogtlError, ExperimentError
from analogtl.fastsim.python_file import PythonFileError, place_of, run_text, told
from analogtl.models.fit import fit_of
from analogtl.vocabulary import FileNetwork


@dataclass(frozen=True)
class OwnNetwork:
    """A network file, and what its function is given."""

    network: FileNetwork
    text: str
    sizes: Mapping[str, int]  # of the task: see `fit_of`
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Build the network, with weights from torch's generator, and try it out on a twin.

        Raises:
            ExperimentError: In one line, with file and line, if the file or its function fails,
                what it returns is no network for these images and classes, or the same seed does
                not give the same weights.
        """
        before = torch.get_rng_state()
        model, _ = self._made()
        with torch.random.fork_rng():
            torch.set_rng_state(before)
            twin, _ = self._made()
            mine, again = model.state_dict(), twin.state_dict()
            for name in mine:
                if name not in again or not torch.equal(mine[name], again[name]):
                    raise self._error(
                        f"the same seed gave another {name} the second time: take random numbers "
                        "from torch alone"
                    )
            self._try_out(twin)
        return model

    def with_new_head(self, model: nn.Module) -> nn.Module:
        """Build the network once more, with all weights of a trained one but those of the head.

        The head is the layer that ``build`` names, or else every weight whose shape depends on the
        number of classes.

        Raises:
            ExperimentError: As `build` does; or if there is no head, or the rest does not fit.
        """
        fresh, head = self._made()
        state, trained = fresh.state_dict(), model.state_dict()
        new = {name for name in state if f"{name}.".startswith(f"{head}.")} if head else set()
        if head is None:
            with torch.random.fork_rng():
                more = {**self.sizes, "n_classes": self.sizes["n_classes"] + 1}
                other, _ = OwnNetwork(self.network, self.text, more, self.kwargs)._made()
            shapes = {name: one.shape for name, one in other.state_dict().items()}
            new = {name for name, one in state.items() if shapes.get(name) != one.shape}
        if not new:
            raise self._error(
                "no weight depends on n_classes, so that no head can be replaced: return the "
                "network and the name of its head"
            )
        kept = {name: trained.get(name, torch.empty(0)) for name in state if name not in new}
        for name, one in kept.items():
            if one.shape != state[name].shape:
                raise self._error(f"{name} depends on n_classes and is no part of the head {head}")
        fresh.load_state_dict({**state, **kept})
        return fresh

    def _made(self) -> tuple[nn.Module, str | None]:
        """What the function returns: the network, and the name of its head if it gives one."""
        file, inside = self.network.file, self.network.inside
        try:
            function = run_text(file, self.text).get(inside)
        except PythonFileError as error:
            raise ExperimentError(str(error)) from None
        if not callable(function):
            raise self._error("expected a function")
        try:
            made = function(**self.sizes, **self.kwargs)
        except (Exception, SystemExit) as error:
            line = line_of(self.network, self.text)
            raise ExperimentError(told(error, file, f"{inside}: ", line)) from None
        model, head = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(model, nn.Module):
            raise self._error(
                f"expected a torch.nn.Module, or one and the name of its head; got {_kind(made)}"
            )
        if head is not None and (not head or head not in dict(model.named_modules())):
            raise self._error(f"the network has no layer {head!r} for a head")
        return model, head

    def _try_out(self, model: nn.Module) -> None:
        """Send zeros through: one example to see, and two to learn from.

        A mistake of the file shows here, and not hours later in the first epoch.
        """
        fit = fit_of(self.sizes)
        one, two = fit.example, torch.cat([fit.example] * 2)
        with told_with_line():
            with torch.no_grad():
                logits = model.eval()(one)
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else _kind(logits)
            if shape != fit.outputs:
                seen, wanted = fit.words
                raise self._error(
                    f"its output for one {seen} is {shape}; expected {fit.outputs}, {wanted}"
                )
            total = model.train()(two).sum()
            if not total.requires_grad:
                raise self._error("its output has no gradient, so that nothing can be learned")
            total.backward()

    def _error(self, what: str) -> ExperimentError:
        line = line_of(self.network, self.text)
        return ExperimentError(f"{self.network.file}:{line}: {self.network.inside}: {what}")


@contextlib.contextmanager
def told_with_line() -> Iterator[None]:
    """Turn an error that comes up in a file of the user's own into a line with its place.

    Raises:
        ExperimentError: In place of such an error; any other stays what it is.
    """
    try:
        yield
    except (AnalogtlError, MemoryError):
        raise
    except Exception as error:
        if (place := place_of(error)) is None:
            raise
        raise ExperimentError(told(error, place)) from error


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
