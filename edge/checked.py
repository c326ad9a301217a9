"""TOML into frozen dataclasses that check themselves; what is wrong is said by file and key."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal


class SettingsError(Exception):
    """The settings cannot be used; says in one line the file, the key and what would be right."""

    def __init__(self, path: Path | str, key: str, remedy: str) -> None:
        super().__init__(f"{path}: {key}: {remedy}" if key else f"{path}: {remedy}")
        self.path = path
        self.key = key
        self.remedy = remedy


def need(ok: bool, key: str, remedy: str) -> None:
    """Refuse a value, in a ``__post_init__``, unless it is ``ok``."""
    if not ok:
        raise ValueError(f"{key}\0{remedy}")


def need_above_zero(settings: object, *names: str) -> None:
    """Refuse fields that are zero or less."""
    for name in names:
        need(getattr(settings, name) > 0, name, "use a number above 0")


def need_rising(settings: object, name: str, example: str) -> None:
    """Refuse times that do not rise."""
    times_s = getattr(settings, name)
    rising = all(time_s > 0 for time_s in times_s) and list(times_s) == sorted(set(times_s))
    need(rising, name, f"use rising numbers of seconds above 0, such as {example}")


T = typing.TypeVar("T")


def build(cls: type[T], table: Mapping[str, Any], path: Path, where: str) -> T:
    """Return ``cls`` from a table, its fields from the keys of the same name.

    Raises:
        SettingsError: a key is unknown, missing or wrong.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "path"}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise SettingsError(path, where + key, f"unknown key; known here: {', '.join(fields)}")
    values = {key: _value(hints[key], value, path, where + key) for key, value in table.items()}
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise SettingsError(path, where + name, "is missing")
    try:
        return cls(**values)
    except ValueError as error:
        key, _, remedy = str(error).partition("\0")
        raise SettingsError(path, where + key, remedy) from None


def _value(hint: Any, value: Any, path: Path, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:  # of kinds of one thing: the table says which
        kinds = tuple(kind for kind in typing.get_args(hint) if kind is not types.NoneType)  # or left out
        hint = _kind(kinds, value, path, key) if len(kinds) > 1 else kinds[0]
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise SettingsError(path, key, f"is a table: write [{key}]")
        return build(typing.cast("type[Any]", hint), value, path, key + ".")
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list):
            tables = dataclasses.is_dataclass(item) or typing.get_origin(item) is types.UnionType
            raise SettingsError(path, key, f"write {f'[[{key}]]' if tables else 'a list in [ ]'}")
        return tuple(_value(item, v, path, f"{key}[{i}]") for i, v in enumerate(value, start=1))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise SettingsError(path, key, 'write a table, such as { "12" = "+447700900123" }')
        return {name: _value(str, v, path, f"{key}.{name}") for name, v in value.items()}
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise SettingsError(path, key, f"{value!r} is not known; use one of {', '.join(map(repr, choices))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    fits = fits and not isinstance(value, datetime)  # which is a date too
    if not fits or (hint is float and not math.isfinite(value)):
        words = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
        words[date] = "a date without quotes, such as 2026-11-22"
        raise SettingsError(path, key, f"{value!r} is wrong; use {words[hint]}")
    return value


def _kind(kinds: tuple[Any, ...], value: Any, path: Path, key: str) -> Any:
    """Return the dataclass whose ``kind`` a table names; the first where it names none."""
    if not isinstance(value, dict):
        raise SettingsError(path, key, f"is a table: write [{key}]")
    by_name = {typing.get_args(typing.get_type_hints(cls)["kind"])[0]: cls for cls in kinds}
    wanted = value.get("kind", next(iter(by_name)))
    if not isinstance(wanted, str) or wanted not in by_name:
        raise SettingsError(
            path, f"{key}.kind", f"{wanted!r} is not known; use one of {', '.join(map(repr, by_name))}"
        )
    return by_name[wanted]
