"""An experiment as TOML text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def value(item: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, str):
        return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):
        return repr(item)
    if isinstance(item, Mapping):
        inner = ", ".join(f"{_key(key)} = {value(of)}" for key, of in item.items())
        return f"{{ {inner} }}" if inner else "{}"
    return "[" + ", ".join(value(of) for of in item) + "]"


def text(data: Mapping[str, Any]) -> str:
    """Nested tables as TOML; what is None is left out, as TOML has no such value."""
    return "\n".join(_table(data, "")).strip() + "\n"


def _table(data: Mapping[str, Any], name: str) -> Iterator[str]:
    plain = {k: v for k, v in data.items() if v is not None and not isinstance(v, Mapping)}
    if plain and name:
        yield f"[{name}]"
    for key, item in plain.items():
        yield f"{_key(key)} = {value(item)}"
    if plain:
        yield ""
    for key, item in data.items():
        if isinstance(item, Mapping):
            yield from _table(item, f"{name}.{_key(key)}" if name else _key(key))


def _key(key: str) -> str:
    bare = key.replace("-", "a").replace("_", "a")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key, ensure_ascii=False)
