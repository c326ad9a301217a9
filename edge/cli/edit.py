"""Change the settings file as a person would: comments stay, and it is never half written."""

from __future__ import annotations

import contextlib
import grp
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from edge.checked import SettingsError, build
from edge.failpoint import failpoint
from edge.settings import Settings, load_settings

GROUP = "fallwatch"  # of the services


def bind_wearable(path: Path, resident: str, wearable: str, *, spare: bool = False) -> Settings:
    """Note in the settings that ``resident`` wears ``wearable``, as the first or as a spare, and nobody else does.

    Raises:
        SettingsError: there is no such resident, or the file cannot be written.
    """
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    tables = document.get("resident", [])
    if all(table["id"] != resident for table in tables):
        known = ", ".join(str(table["id"]) for table in tables) or "none yet"
        raise SettingsError(path, "resident", f"there is no resident {resident!r}; known: {known}")
    _unbind(tables, wearable)
    for table in tables:
        if table["id"] == resident:
            table["spare" if spare else "wearable"] = wearable
    write_settings(path, tomlkit.dumps(document))
    return load_settings(path)


def unbind_wearable(path: Path, wearable: str) -> Settings:
    """Note in the settings that nobody wears ``wearable``; a spare then takes the first one's place.

    Raises:
        SettingsError: the file cannot be written.
    """
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    _unbind(document.get("resident", []), wearable)
    write_settings(path, tomlkit.dumps(document))
    return load_settings(path)


def _unbind(tables: Any, wearable: str) -> None:
    for table in tables:
        if table.get("spare") == wearable:
            del table["spare"]
        if table.get("wearable") == wearable:
            table["wearable"] = table.get("spare", "")
            table.pop("spare", None)


def describe_wearable(path: Path, facts: Mapping[str, Any]) -> Settings:
    """Note in the settings how the wearable ``facts["id"]`` is reached.

    Raises:
        SettingsError: a fact is wrong, or the file cannot be written. The file is as it was.
    """
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    tables = document.setdefault("wearable", tomlkit.aot())
    for i, table in enumerate(tables):
        if table["id"] == facts["id"]:
            del tables[i]
            break
    table = tomlkit.table()
    table.update(facts)
    tables.append(table)
    text = tomlkit.dumps(document)
    build(Settings, tomllib.loads(text), path, "")  # refuse what is wrong before the file is touched
    write_settings(path, text)
    return load_settings(path)


def place_camera(
    path: Path, camera: str, *, floor: list[float] | None = None, zone: Mapping[str, Any] | None = None
) -> Settings:
    """Note in the settings where a camera's floor lies, or one more zone of its room.

    Raises:
        SettingsError: it is wrong, or the file cannot be written. The file is as it was.
    """
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    table = next(table for table in document["camera"] if table["id"] == camera)
    if floor is not None:
        table["floor"] = floor
    if zone is not None:
        table.setdefault("zone", tomlkit.array()).append(dict(zone))
    text = tomlkit.dumps(document)
    build(Settings, tomllib.loads(text), path, "")  # refuse what is wrong before the file is touched
    write_settings(path, text)
    return load_settings(path)


def choose_models(path: Path, names: Mapping[str, str]) -> Settings:
    """Note in ``[detect]`` which models run, all at once; an empty name takes its line out.

    Raises:
        SettingsError: the file cannot be written. It is as it was.
    """
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    table = document.setdefault("detect", tomlkit.table())
    for key, name in names.items():
        table.pop(key, None)
        if name:
            table[key] = name
    write_settings(path, tomlkit.dumps(document))
    return load_settings(path)


def write_settings(path: Path, text: str) -> None:
    """Replace the settings file in one step, the old one kept beside it; or begin it, for the services to read.

    Raises:
        SettingsError: the folder cannot be written.
    """
    new, old = path.with_suffix(".toml.new"), path.with_suffix(".toml.old")
    try:
        make_folder(path.parent)
        # Readable by its owner alone until it has its rights: it holds NHS numbers.
        write_private(new, text)
        failpoint("settings.new-written")
        hand_over(new, path.stat().st_mode & 0o777 if path.exists() else 0o640, like=path)
        if path.exists():
            old.unlink(missing_ok=True)
            os.link(path, old)
        failpoint("settings.old-kept")
        new.replace(path)
        sync_folder(path.parent)
        failpoint("settings.replaced")
    except OSError as error:
        raise SettingsError(
            path, "", f"cannot be written ({error.strerror}); run as the user who owns it"
        ) from None


def write_private(path: Path, text: str) -> None:
    """Write a new file that its owner alone may read, down to the disk; one that is there is taken away first.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def hand_over(path: Path, mode: int, *, like: Path | None = None) -> None:
    """Give a file its rights, and the group of ``like``, else that of the services where there is one.

    Raises:
        OSError: the file is not ours.
    """
    with contextlib.suppress(KeyError):  # a checkout has no such group
        if os.geteuid() == 0:
            group = like.stat().st_gid if like is not None and like.exists() else grp.getgrnam(GROUP).gr_gid
            os.chown(path, -1, group)
    path.chmod(mode)


def make_folder(path: Path) -> None:
    """Make a folder that the services may read, and hands its group on; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    if not path.exists():
        path.mkdir(mode=0o750, parents=True)
        hand_over(path, 0o2750)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
