"""The settings file that answers come to, and the answers that a settings file gives: text in, text out."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT, Comment, Table, Whitespace

from edge.channels import EspaSettings
from edge.settings import BLE_KINDS, CameraSettings, RecordSettings, ResidentSettings, Settings
from edge.setup.comments import COMMENTS, TOP
from edge.setup.questions import CHANNELS, NONE, Answers, Row

WIDTH = 100
TOKEN, KEY, PASSWORD = "record-token", "record-key.pem", "broker-password"  # names of files
# question: its table and key in the settings; the others have functions of their own below
_PLAIN = {
    "home_id": ("home", "id"),
    "home_name": ("home", "name"),
    "timezone": ("home", "timezone"),
    "groups": ("escalation", "groups"),
    "steps_s": ("escalation", "steps_s"),
    "record": ("record", "kind"),
    "record_url": ("record", "base_url"),
    "record_auth": ("record", "auth"),
    "record_client_id": ("record", "client_id"),
    "record_identifier_system": ("record", "identifier_system"),
    "record_local_system": ("record", "patient_local_system"),
    "broker_tls": ("mqtt", "tls"),
    "broker_ca_file": ("mqtt", "ca_file"),
    "broker_username": ("mqtt", "username"),
}
_PAGER_LINE = ("port", "url", "host", "line", "rc_file", "kind")  # by these a channel is known again


def settings_text(before: str, answers: Answers, secrets: Path) -> str:
    """Return the settings with what is answered; what nobody answered stays as it was, comments included.

    Args:
        before: the present file; empty: there is none.
        answers: of `edge.setup.questions`; those that are missing change nothing.
        secrets: the folder of secret files.
    """
    writing = _Writing(before)
    _write_plain(writing, answers, secrets, "home")
    if "receivers" in answers:
        writing.lines("dongle", [{"port": port} for port in answers["receivers"]], by=("port",))
    if answers.get("bluetooth", NONE) != NONE:
        writing.set("ble", "adapter", answers["bluetooth"])
    if "pagers" in answers:
        writing.lines("pager", [{"kind": "espa444", **row} for row in answers["pagers"]], by=_PAGER_LINE)
    _write_plain(writing, answers, secrets, "escalation", "record")
    if "broker" in answers:
        _write_broker(writing, str(answers["broker"]))
    if answers.get("broker", NONE) != NONE:
        _write_plain(writing, answers, secrets, "mqtt")
    cover = {"cover": answers["cover"]} if "cover" in answers else {}
    residents = [_in_order(ResidentSettings, cover | row) for row in answers.get("residents", ())]
    writing.lines("resident", residents, by=("id",), whole=False)
    cameras = [_in_order(CameraSettings, row) for row in answers.get("cameras", ())]
    writing.lines("camera", cameras, by=("id",), whole=False)
    _write_wearables(writing, answers.get("wearables", ()))
    return writing.text()


def _write_plain(writing: _Writing, answers: Answers, secrets: Path, *tables: str) -> None:
    for key, (table, name) in _PLAIN.items():
        if key in answers and table in tables:
            writing.set(table, name, answers[key])
    for key, (table, name) in SECRET_KEYS.items():
        if answers.get(key) and table in tables:
            writing.set(table, name, secret_name(key, str(answers[key]), secrets))


def _in_order(cls: type[Any], row: Row) -> dict[str, Any]:
    return {f.name: row[f.name] for f in dataclasses.fields(cls) if f.name in row}


SECRET_KEYS = {
    "record_token_file": ("record", "token_file"),
    "record_key_file": ("record", "key_file"),
    "broker_password_file": ("mqtt", "password_file"),
}


def secret_name(key: str, path: str, secrets: Path) -> str:
    """Return what a secret is called in the secrets folder: its own name where it lies there already."""
    if Path(path).parent == secrets:
        return Path(path).name
    return {"record_token_file": TOKEN, "record_key_file": KEY, "broker_password_file": PASSWORD}[key]


def answers_of(settings: Settings) -> dict[str, Any]:
    """Return what the settings answer already."""
    found: dict[str, Any] = {
        key: _toml(getattr(getattr(settings, table), name)) for key, (table, name) in _PLAIN.items()
    }
    record, mqtt = settings.record, settings.mqtt
    if record.kind == "embedded":
        found = {key: value for key, value in found.items() if not key.startswith("record_")}
    elif record.identifier_system == RecordSettings().identifier_system:
        del found["record_identifier_system"]  # the example's, which a home should not keep
    if record.token_file:
        found["record_token_file"] = str(settings.secrets / record.token_file)
    if record.auth == "smart-backend":
        found["record_key_file"] = str(settings.secrets / record.key_file)
    found["broker"] = f"{mqtt.host}:{mqtt.port}" if mqtt.host else NONE
    if not mqtt.host:
        found = {key: value for key, value in found.items() if not key.startswith("broker_")}
    if mqtt.password_file:
        found["broker_password_file"] = str(settings.secrets / mqtt.password_file)
    found["receivers"] = [dongle.port for dongle in settings.dongle]
    by_ble = any(wearable.kind in BLE_KINDS for wearable in settings.wearable)
    found["bluetooth"] = settings.ble.adapter if by_ble or settings.ble.adapter != "hci0" else NONE
    found["pagers"] = [_shown(channel) for channel in settings.pager]
    return found


def _shown(channel: Any) -> dict[str, Any]:
    """Return a channel as its table: what is not as by default, and always what an installer compares."""
    always = ("kind", "baud", "format", "station", "variant") if isinstance(channel, EspaSettings) else ("kind",)
    return {
        field.name: _toml(getattr(channel, field.name))
        for field in dataclasses.fields(channel)
        if field.name in always or getattr(channel, field.name) != _default(field)
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _toml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _write_broker(writing: _Writing, broker: str) -> None:
    host, _, port = broker.partition(":")
    if broker != NONE:
        writing.set("mqtt", "host", host)
        writing.set("mqtt", "port", int(port))
    elif writing.has("mqtt"):
        writing.set("mqtt", "host", "")


def _write_wearables(writing: _Writing, rows: Sequence[Row]) -> None:
    """Bind wearables to residents; what one wears belongs to nobody else."""
    for row in rows:
        key = "spare" if row.get("spare") else "wearable"
        writing.take_off(row["wearable"], but=(row["resident"], key))
        resident = {key: row["wearable"]}
        if row.get("placement"):
            resident["placement"] = row["placement"]
        writing.lines("resident", [{"id": row["resident"], **resident}], by=("id",), whole=False)
        if row.get("kind", "fallwatch") != "fallwatch":
            facts = {key: row[key] for key in ("kind", "address", "port") if row.get(key)}
            writing.lines("wearable", [{"id": row["wearable"], **facts}], by=("id",), whole=False)


class _Writing:
    """A settings file being changed: values in place, new keys under a line on what they are."""

    def __init__(self, before: str) -> None:
        self._document: Any = tomlkit.parse(before)
        self._before = before
        self._fresh = not before.strip()
        self._explained = set(_paths(self._document.unwrap()))
        if self._fresh:
            for line in TOP.splitlines():
                self._document.add(tomlkit.comment(line))

    def text(self) -> str:
        text = tomlkit.dumps(self._document)
        if self._fresh:
            text = re.sub(r"\n+(?=\[)", "\n\n", text)
        return text if text == self._before else text.rstrip() + "\n"

    def has(self, table: str) -> bool:
        return table in self._document

    def set(self, table: str, key: str, value: Any) -> None:
        """Put a value into a table; one that is as by default is not added to a file that a person has."""
        if table not in self._document:
            if not self._fresh and value == _toml(_default_of(table, key)):
                return
            self._append(table, tomlkit.table())
        here = self._document[table]
        if not self._fresh and key not in here and value == _toml(_default_of(table, key)):
            return
        self._put(here, table, key, value)

    def lines(self, table: str, rows: Sequence[Row], *, by: tuple[str, ...], whole: bool = True) -> None:
        """Put lines into an array of tables, into those that are there already where ``by`` says they are meant.

        Args:
            table: its name.
            rows: the lines.
            by: the keys that make a line known again.
            whole: the rows are all there are to be; others are taken out.
        """
        if not rows and not (whole and self.has(table)):
            return
        if not self.has(table):
            self._document.append(table, tomlkit.aot())
        tables = self._document[table]
        kept = []
        for row in rows:
            own = next((t for t in tables if t not in kept and _same(t, row, by)), None)
            known = own is not None and not self._fresh
            own = self._add_line(tables) if own is None else own
            kept.append(own)
            for key, value in row.items():
                if not (known and key not in own and value == _line_default(table, row, key)):
                    self._put(own, table, key, value)
        if whole:
            for number in range(len(tables) - 1, -1, -1):
                if not any(tables[number] is one for one in kept):
                    self._drop_line(tables, number)

    def take_off(self, wearable: str, *, but: tuple[str, str]) -> None:
        """Have nobody wear a wearable, but one resident in one way."""
        for table in self._document.get("resident", []):
            for key in ("wearable", "spare"):
                if table.get(key) == wearable and (table["id"], key) != but:
                    del table[key]

    def _put(self, here: Any, path: str, key: str, value: Any) -> None:
        if isinstance(value, Mapping) and key == "consent":
            if key not in here:
                here.append(key, tomlkit.table())
            for inner, item in value.items():
                self._put(here[key], f"{path}.{key}", inner, item)
            return
        if key in here:
            if _plain(here[key]) != value:
                here[key] = _item(value)
            return
        rest = _cut_tail(here)
        for line in self._explanation(path, here, key, value):
            here.add(tomlkit.comment(line))
        here.append(key, _item(value))
        _container(here).body.extend(rest)

    def _explanation(self, path: str, here: Any, key: str, value: Any) -> list[str]:
        kind = str(here.get("kind", value if key == "kind" else "")) if path == "pager" else ""
        name = f"{path}.{key}"
        comment = COMMENTS.get(f"{path}.{kind}.{key}") or COMMENTS.get(name, "")
        if (kind, name) in self._explained or ("", name) in self._explained or not comment:
            return []
        self._explained.add((kind, name))
        return textwrap.wrap(comment, WIDTH)

    def _append(self, name: str, table: Any) -> None:
        if self._document.body:
            self._document.add(tomlkit.nl())
        self._document.append(name, table)

    def _add_line(self, tables: Any) -> Any:
        if isinstance(tables, AoT):
            last = _deepest(tables[-1]) if len(tables) else None
            rest = _cut_tail(last) if last is not None else []
            if last is not None or self._document.body:
                (_container(last) if last is not None else self._document).add(tomlkit.nl())
            tables.append(tomlkit.table())
            _container(tables[-1]).body.extend(rest)
        else:  # written as a list of inline tables
            tables.append(tomlkit.inline_table())
        return tables[-1]

    def _drop_line(self, tables: Any, number: int) -> None:
        if isinstance(tables, AoT) and number:
            rest = _cut_tail(_deepest(tables[number]))
            last = _deepest(tables[number - 1])
            _cut_tail(last)
            _container(last).body.extend(rest)
        del tables[number]


def _plain(item: Any) -> Any:
    return item.unwrap() if hasattr(item, "unwrap") else item  # tomlkit hands out a bare bool


def _same(table: Any, row: Row, by: tuple[str, ...]) -> bool:
    known = [key for key in by if key in row and key != "kind"]
    kinds = "kind" not in by or table.get("kind", "espa444") == row.get("kind", "espa444")
    return kinds and all(table.get(key) == row[key] for key in known)


def _item(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    if isinstance(value, float) and value.is_integer():
        return tomlkit.item(int(value))
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend([int(v) if isinstance(v, float) and v.is_integer() else v for v in value])
        return array
    return tomlkit.item(value)


def _container(table: Any) -> Any:
    return table.value if isinstance(table, Table) else table


def _deepest(table: Any) -> Any:
    """Return the table in which the lines after this one stand: a last table of its own, else itself."""
    inner = [item for key, item in _container(table).body if key is not None]
    if inner and isinstance(inner[-1], Table):
        return _deepest(inner[-1])
    return _deepest(inner[-1][-1]) if inner and isinstance(inner[-1], AoT) and len(inner[-1]) else table


def _cut_tail(table: Any) -> list[Any]:
    """Take the blank lines and comments at a table's end, which belong to what comes after it."""
    if not isinstance(table, Table):
        return []
    body = table.value.body
    at = len(body)
    while at and body[at - 1][0] is None and isinstance(body[at - 1][1], Comment | Whitespace):
        at -= 1
    blank = next((i for i in range(at, len(body)) if isinstance(body[i][1], Whitespace)), len(body))
    tail = list(body[blank:])
    del body[blank:]
    return tail


def _paths(tables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keys that a file has already, which need no explanation any more."""
    for name, value in tables.items():
        for table in value if isinstance(value, list) else [value]:
            if isinstance(table, Mapping):
                yield from (("", f"{name}.{key}") for key in table)


def _line_default(table: str, row: Row, key: str) -> Any:
    """Return what a key of an array of tables is where it is left out."""
    cls = typing.get_args(typing.get_type_hints(Settings)[table])[0]
    if table == "pager":
        cls = CHANNELS[str(row.get("kind", "espa444"))]
    return _toml(_default(next(field for field in dataclasses.fields(cls) if field.name == key)))


def _default_of(table: str, key: str) -> Any:
    cls = typing.get_type_hints(Settings)[table]
    return _default(next(field for field in dataclasses.fields(cls) if field.name == key))
