"""Networks of transformers: encoders and causal decoders, for classes of texts or the next token.

transformers is imported only here, and only when such a network is asked for.

Shape suffixes: B texts, T tokens of the longest of them, N tokens of all texts without padding,
C channels, K classes, V tokens of the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from analogtl.errors import ExperimentError, did_you_mean, one_line
from analogtl.models.fit import fit_of
from analogtl.models.language_folder import LACKS_TEXT, LanguageFolder

POOLINGS = ("mean", "own")
HEAD = "a head, digital unless model.kwargs.analog_head is true"


class LanguageModel(nn.Module):
    """A network of transformers, with random weights.

    In: tokens (B, T) int64, below 0 where a text is padded. Out: logits of the classes (B, K), or
    of the next token (B, T, V).

    Linear layers see the tokens of the texts alone: what pads them reaches no array.

    Attributes:
        body: transformers' network.
        head: A linear layer on the mean of the body's last hidden states; None where the body has
            a head of its own.
        stays_digital: Layers that are kept from arrays, by name, and why.

    Args:
        folder: What it is built from: ``config.json`` alone.
        n_classes: Of texts; None to predict the next token.
        pooling: ``mean`` of the tokens, or the model's ``own`` way to classify.
        trainable_blocks: Only the last so many blocks, and what comes after them, are trained.
        analog_head: Whether the head may go onto arrays.
        config: What is to be changed in ``config.json``.
    """

    def __init__(
        self,
        folder: LanguageFolder,
        n_classes: int | None,
        *,
        pooling: str = "mean",
        trainable_blocks: int | None = None,
        analog_head: bool = False,
        **config: Any,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected {' or '.join(POOLINGS)}; got {pooling!r}")
        transformers = _transformers()
        self._folder, self._classes, self._blocks = folder, n_classes, trainable_blocks
        self._config = _configured(folder, config)
        self._kind = transformers.AutoModelForCausalLM
        if n_classes is not None:
            self._config.num_labels = n_classes
            own = pooling == "own"
            of_classes = transformers.AutoModelForSequenceClassification
            self._kind = of_classes if own else transformers.AutoModel
        self.body = self._fresh()
        self.head: nn.Linear | None = None
        if n_classes is not None and pooling == "mean":
            self.head = nn.Linear(self._config.hidden_size, n_classes)
        self.stays_digital = {} if analog_head else dict.fromkeys(self._heads(), HEAD)

    def forward(self, x_BT: Tensor) -> Tensor:
        real_BT = x_BT >= 0
        ids_BT = torch.where(real_BT, x_BT, self._config.pad_token_id)
        how = {} if self._classes is None else {"attention_mask": real_BT.long()}
        with _tokens_alone(self.body, real_BT):
            found = self.body(input_ids=ids_BT, return_dict=True, **how)
        if self.head is None:
            logits: Tensor = found.logits
            return logits
        weight_BT1 = real_BT.unsqueeze(-1).float()
        mean_BC = (found.last_hidden_state * weight_BT1).sum(1) / weight_BT1.sum(1)
        classes_BK: Tensor = self.head(mean_BC)
        return classes_BK

    def load(self) -> None:
        """Take the weights of the folder; the head stays where it has none, or one for others.

        Raises:
            ExperimentError: It has not all of them.
        """
        place = str(self._folder.path)
        how = {"local_files_only": True, "ignore_mismatched_sizes": True}
        try:
            loaded, about = self._kind.from_pretrained(
                place, config=self._config, dtype=torch.float32, output_loading_info=True, **how
            )
        except Exception as error:  # of a damaged file, or one of another kind
            raise ExperimentError(
                f"model.architecture: {place}: its weights cannot be read: {one_line(error)}"
            ) from None
        odd = {*about["missing_keys"], *(name for name, *_ in about["mismatched_keys"])}
        base = {f"{loaded.base_model_prefix}.{name}" for name in loaded.base_model.state_dict()}
        whole = loaded is loaded.base_model
        lacking = sorted(n for n in odd if (whole or n in base) and ".pooler." not in f".{n}")
        if lacking:
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            raise ExperimentError(
                f"model.architecture: {place}: its weights are not those of its config.json: it "
                f"lacks {', '.join(lacking[:3])}{more}"
            )
        state = _with_linear_layers(loaded).state_dict()
        broken = [name for name, one in state.items() if not bool(torch.isfinite(one).all())]
        if broken:
            raise ExperimentError(
                f"model.architecture: {place}: numbers that are not finite: {broken[0]}"
            )
        self.body.load_state_dict({n: t for n, t in state.items() if n not in odd}, strict=False)

    def reset_classifier(self, n_classes: int) -> None:
        """Put in a new head for other classes."""
        self._classes = self._config.num_labels = n_classes
        if self.head is not None:
            self.head = nn.Linear(self._config.hidden_size, n_classes)
            return
        base = self.body.base_model.state_dict()
        self.body = self._fresh()
        self.body.base_model.load_state_dict(base)

    def _fresh(self) -> Any:
        """transformers' network with random weights."""
        body = _with_linear_layers(self._kind.from_config(self._config, dtype=torch.float32))
        if self._classes is not None and isinstance(getattr(body, "pooler", None), nn.Module):
            body.pooler = None  # the mean takes its place; it would be called for nothing
        if self._blocks is not None:
            _freeze(body, self._blocks)
        return body

    def _heads(self) -> Iterator[str]:
        """Names of the linear layers that classes or tokens come from."""
        last = {self.body.get_output_embeddings()}
        if self._classes is not None:
            last = {*self.modules()} - {*self.body.base_model.modules()}
        return (n for n, m in self.named_modules() if m in last and isinstance(m, nn.Linear))


def build_language(
    folder: LanguageFolder, *, kwargs: Mapping[str, Any], sizes: Mapping[str, int]
) -> LanguageModel:
    """Build the network of a folder for texts, with weights from torch's generator.

    Args:
        kwargs: Of `LanguageModel`.
        sizes: Of the task; see `fit_of`.

    Raises:
        ExperimentError: It cannot be built, or is none for such a task.
    """
    fit = fit_of(sizes)
    try:
        model = LanguageModel(folder, sizes.get("n_classes"), **kwargs)
        fit.try_out(model)
        if "n_classes" not in sizes:
            _see_causal(model, fit.example)
    except ExperimentError:
        raise
    except Exception as error:  # there are many kinds of models
        raise ExperimentError(
            f"model.architecture: {folder.path}: cannot be built for {fit.words[0]}s with "
            f"{dict(kwargs) or 'no kwargs'}: {one_line(error)[:200]}"
        ) from error
    return model


def _see_causal(model: nn.Module, example: Tensor) -> None:
    """See that what a network says at a token does not depend on the tokens after it."""
    other = example.clone()
    other[:, -1] = 1
    training = model.training
    with torch.no_grad():
        one, two = (model.eval()(x)[:, :-1] for x in (example, other))
    model.train(training)
    if float((one - two).abs().max()) > 1e-6 * float(one.abs().max()):
        raise ValueError("it sees the tokens that it is to predict: no causal decoder")


def _transformers() -> Any:
    transformers: Any  # which has types in part
    try:
        import transformers
    except ImportError:
        raise ExperimentError(LACKS_TEXT) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _configured(folder: LanguageFolder, changes: Mapping[str, Any]) -> Any:
    """The configuration of a model, with changes."""
    config, unknown = _transformers().AutoConfig.from_pretrained(
        str(folder.path), local_files_only=True, return_unused_kwargs=True, **changes
    )
    if unknown:
        name = next(iter(unknown))
        hint = did_you_mean(name, ["pooling", "trainable_blocks", "analog_head", *config.to_dict()])
        raise ValueError(f"kwargs.{name} is unknown; {hint}")
    config.use_cache = False
    if config.pad_token_id is None:
        config.pad_token_id = 0
    return config


def _with_linear_layers(body: Any) -> Any:
    """Put linear layers in the place of GPT-2's Conv1D, which is one with a transposed weight."""
    from transformers.pytorch_utils import Conv1D

    for name, layer in list(body.named_modules()):
        if isinstance(layer, Conv1D):
            inputs, outputs = layer.weight.shape
            linear = nn.Linear(inputs, outputs, device="meta")
            linear.weight = nn.Parameter(layer.weight.detach().t().contiguous())
            linear.bias = layer.bias
            owner, _, attribute = name.rpartition(".")
            setattr(body.get_submodule(owner), attribute, linear)
    return body


def _freeze(body: nn.Module, count: int) -> None:
    """Freeze a network up to its last so many blocks."""
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m)]
    blocks: Any = max(lists, key=lambda one: sum(p.numel() for p in one.parameters()), default=())
    if type(count) is not int or not 0 <= count <= len(blocks):
        raise ValueError(f"trainable_blocks: expected 0 to {len(blocks)}; got {count!r}")
    parameters = [id(one) for one in body.parameters()]
    if count:
        edge = parameters.index(id(next(blocks[-count].parameters())))
    else:
        edge = 1 + max(parameters.index(id(one)) for one in blocks[-1].parameters())
    for parameter in list(body.parameters())[:edge]:
        parameter.requires_grad_(False)


@contextlib.contextmanager
def _tokens_alone(body: nn.Module, real_BT: Tensor) -> Iterator[None]:
    """Let linear layers see the tokens of texts alone, and not what pads them."""
    if bool(real_BT.all()):
        yield
        return

    shapes = (real_BT.shape, (real_BT.numel(),))
    gathered: dict[nn.Module, tuple[int, ...]] = {}

    def gather(layer: nn.Module, args: tuple[Any, ...]) -> Any:
        x = args[0]
        if x.shape[:-1] not in shapes:
            return None
        gathered[layer] = x.shape[:-1]
        return (x[real_BT.view(x.shape[:-1])], *args[1:])

    def scatter(layer: nn.Module, _args: Any, y_NC: Tensor) -> Any:
        if (shape := gathered.pop(layer, None)) is None:
            return None
        y = y_NC.new_zeros(*shape, y_NC.shape[-1])
        y[real_BT.view(shape)] = y_NC
        return y

    layers = [m for m in body.modules() if isinstance(m, nn.Linear)]
    handles = [layer.register_forward_pre_hook(gather) for layer in layers]
    handles += [layer.register_forward_hook(scatter) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
