"""[model]: which network, and which weights it starts from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import Field

from analogtl.config.network_file import check_network_file, imports
from analogtl.config.parameters import Problem
from analogtl.config.python_file import parsed
from analogtl.config.section import Number, PositiveNumber, Section, Text, content_key
from analogtl.errors import ExperimentError
from analogtl.vocabulary import LANGUAGE, FileNetwork, Network, file_network

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".npz", ".h5", ".onnx")
# Arguments of a network's constructor that are not the user's to give.
FOLLOW_FROM_DATA = (*("num_classes", "in_chans", "img_size", "context", "vocabulary", "features"),)
FETCH_WEIGHTS = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
)
GIVEN_TO_BUILD = (  # by analogtl
    *("n_classes", "image_size", "in_channels", "context", "vocabulary", "features"),
)


def kwargs_problems(kwargs: Iterable[str]) -> Iterator[Problem]:
    """Find what would load weights behind our back, or contradict the data set, in [model]."""
    for key in kwargs:
        if key in FOLLOW_FROM_DATA:
            yield f"kwargs.{key}", "follows from the data set; remove it"
        elif key in FETCH_WEIGHTS:
            yield f"kwargs.{key}", "would load weights; name them in model.weights instead"


def is_published(name: str) -> bool:
    """Whether a name is of the kind that published weights have, and not that of a file."""
    of_hub = re.fullmatch(r"hf[-_]hub:[\w.-]+/[\w.-]+", name)
    of_timm = re.fullmatch(r"\w+\.\w+", name) and not name.lower().endswith(WEIGHT_SUFFIXES)
    return bool(of_hub or of_timm)


class Model(Section):
    """The network."""

    architecture: Text = "swin_digits"
    """One of `analogtl list models`, e.g. `swin_cifar_tiny`, the paper's; any timm model name; or a
    language model of transformers, `hf:FOLDER` or, as the Hugging Face hub calls it,
    `hf:owner/name` (`analogtl explain objectives`). The latter, and timm's with a tag, as in
    `resnet18.a1_in1k`, name published weights as well."""
    file: Text | None = None
    """In place of an architecture: a network of your own, `my_net.py:build`, the Python file
    (beside the experiment file) and the function in it. The file is run as it is
    (`analogtl explain models`)."""
    kwargs: dict[Text, Any] = {}
    """Further arguments for the model's constructor, e.g. `{ depths = [2, 2] }`."""
    files: dict[Text, Text] = {}
    """The text of each network file that is named, by its name: filled in when the experiment is
    read, so that what was planned is what runs."""

    weights: Text | None = None
    """Weights that the pretrained arms start from, in place of random ones: a safetensors or
    PyTorch file beside the experiment file, timm's name of published ones (`resnet18.a1_in1k`), or
    a repository of the Hugging Face hub (`hf_hub:owner/name`). With [pretrain] epochs = 0 these are
    the pretrained network."""
    mean: Annotated[tuple[Number, ...], Field(min_length=1)] | None = None
    """Mean of each colour channel by which images are normalised, 1 being white. As the weights say
    if absent, else that of the training images."""
    std: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)] | None = None
    """Standard deviation of each colour channel, likewise; given together with the mean."""
    weight_files: dict[Text, Text] = {}
    """Where each file of weights lies that is named, by its name: filled in when the experiment is
    read. For results the content counts, not the place."""

    def _problems(self) -> Iterator[Problem]:
        yield from self._weight_problems()
        if self.file is None:
            yield from kwargs_problems(self.kwargs)
            return
        if (network := self.own) is None:
            yield (
                "file",
                f"expected a Python file and a function, my_net.py:build; got {self.file!r}",
            )
        elif network.file not in self.files:
            yield "file", f"{network.file}: no such file beside the experiment"
        else:
            try:
                check_network_file(network, self.files[network.file])
            except ExperimentError as error:
                yield "file", error.problems[0]
        for key in GIVEN_TO_BUILD:
            if key in self.kwargs:
                yield f"kwargs.{key}", "follows from the data set; remove it"

    def _weight_problems(self) -> Iterator[Problem]:
        if self.weights is not None and self.start != self.weights:
            yield "weights", f"{self.architecture!r} names weights already: give one of the two"
        elif self.weights and not (self.weights in self.weight_files or is_published(self.weights)):
            hub = "a repository of the Hugging Face hub is named hf_hub:owner/name"
            yield "weights", f"{self.weights}: no such file beside the experiment; {hub}"
        if (self.mean is None) != (self.std is None):
            yield "mean" if self.std is None else "std", "expected mean and std, or neither"
        elif self.mean and self.std and len(self.mean) != len(self.std):
            yield "std", f"expected as many numbers as mean has, {len(self.mean)}"

    @property
    def own(self) -> FileNetwork | None:
        """The network of the user's own; None for one that has a name."""
        return file_network(self.file)

    @property
    def is_language(self) -> bool:
        """Whether it is a language model of transformers, in a folder with its tokenizer."""
        return self.file is None and self.architecture.startswith(LANGUAGE)

    @property
    def network(self) -> str:
        """The architecture without the tag."""
        return self.architecture if self.is_language else self.architecture.partition(".")[0]

    @property
    def start(self) -> str | None:
        """The name of the weights that the pretrained arms start from, if any."""
        named = self.is_language or (self.file is None and "." in self.architecture)
        return self.architecture if named else self.weights

    @property
    def uses_timm(self) -> bool:
        """Whether its outcome can depend on timm's version."""
        if self.own is not None:
            return "timm" in dict(imports(parsed(self.own.file, self.files[self.own.file])))
        return not self.is_language and self.network not in set(Network)

    def resolved(self) -> dict[str, Any]:
        """What counts, defaults filled in, as JSON-able values."""
        unset = {name for name in ("weights", "mean", "std") if getattr(self, name) is None}
        rest = {"weight_files", "files", *unset}
        if self.own is None:
            return self.model_dump(mode="json", exclude={"file", *rest})
        key = content_key(self.own.inside, self.files[self.own.file])
        return {**self.model_dump(mode="json", exclude={"architecture", *rest}), "network": key}
