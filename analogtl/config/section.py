"""What sections of an experiment file are made of: strict types, and how problems are told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from analogtl.config.parameters import Problem

T = TypeVar("T")
Bool = Annotated[bool, Field(strict=True)]
Int = Annotated[int, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
PositiveInt = Annotated[Int, Field(ge=1, le=10**9)]
PositiveNumber = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Seed = Annotated[Int, Field(ge=0, le=2**31 - 1)]
Level = Bool | Int | Number | Text


def checked(problems: Iterable[Problem], value: T) -> T:
    """Raise all problems of one section as a single validation error, or return the value."""
    found = list(problems)
    if found:
        raise PydanticCustomError("problems", "several problems", {"problems": found})
    return value


class Section(BaseModel):
    """A section of the file: unknown keys are errors, values cannot change later."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        return checked(self._problems(), self)

    def _problems(self) -> Iterable[Problem]:
        """Find the keys whose values do not fit together, and why."""
        return ()


def content_key(*parts: Any) -> str:
    """A short hash of JSON-able parts: equal content, equal key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# TOML reads an unquoted dotted key as nested tables; both spellings mean the same.
Dotted = BeforeValidator(lambda data: flatten(data) if isinstance(data, Mapping) else data)
