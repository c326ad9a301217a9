"""Commands that bind wearables to residents, and unbind them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import Config, State, app, say, stop
from edge.settings import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    WEARABLE_PATTERN,
    ResidentSettings,
    Settings,
    WearableSettings,
    load_settings,
)

if TYPE_CHECKING:
    from edge.keys import KeyStore

Names = Annotated[list[str] | None, typer.Argument(metavar="[WEARABLE]...", help="Ids, as printed on them.")]
Wearable = Annotated[str | None, typer.Option("--wearable", help="The same as the argument.")]


@app.command(epilog="Example: fallwatch pair 0042 --resident r12")
def pair(
    wearables: Names = None,
    wearable: Wearable = None,
    resident: Annotated[
        str | None, typer.Option("--resident", help="Who wears it; noted in the settings.")
    ] = None,
    spare: Annotated[bool, typer.Option("--spare", help="As a second one, worn while the first charges.")] = False,
    everyone: Annotated[
        bool, typer.Option("--all", help="Every wearable of the settings that has no key.")
    ] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", help="bangle, polar, witmotion-ble, witmotion, shimmer or mqtt.")
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="Its Bluetooth address.")] = None,
    port: Annotated[str | None, typer.Option("--port", help="Its own serial port.")] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="The key that came with it, 32 hexadecimal digits.")
    ] = None,
    qr: Annotated[
        bool | None, typer.Option("--qr/--no-qr", help="Show the key for the wearable; on a terminal it is shown.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Make and store the key of a wearable, show it for the wearable to take, and bind it to a resident."""
    from edge.keys import KeyStore

    settings = load_settings(config)
    store = KeyStore(settings.secrets, state)
    names = [*(wearables or []), *([wearable] if wearable else [])]
    if everyone:
        names += without_key(settings, store)
        if not names:
            say("Every wearable of the settings has a key already.")
            return
    if not names:
        stop("which wearable? Give its id, such as: fallwatch pair 0042 --resident r12", status=2)
    single = {"--resident": resident, "--kind": kind, "--address": address, "--key-file": key_file}
    for option, value in single.items():
        if value is not None and len(names) > 1:
            stop(f"{option} {value}: that is for one wearable, not {len(names)}; pair them one by one", status=2)
    if spare and resident is None:
        stop("--spare: whose? Add --resident ID", status=2)
    _check_names(names)
    for name in names:
        bound = _bind(config, settings, name, resident, spare=spare)
        if kind is not None:
            _describe(config, {"id": name, "kind": kind, "address": address, "port": port})
        settings = load_settings(config)
        if settings.is_sealed(name):
            key = _key(store, name, key_file)
            if qr or (qr is None and sys.stdout.isatty()):
                show_key(name, key)
        say(f"Wearable {name} is paired: resident {bound.id}, room {bound.room}.")
        if not settings.is_sealed(name):
            say(f"Kind {settings.wearable_kind(name)} seals nothing: whoever can reach its link can fake it.")
    say("Next: restart the service (systemctl restart fallwatch-detect), then see fallwatch status.")


@app.command(epilog="Example: fallwatch unpair 0042")
def unpair(
    wearables: Names = None,
    wearable: Wearable = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Wipe the key of a wearable and take it from its resident."""
    from edge.cli.edit import unbind_wearable
    from edge.keys import KeyStore

    settings = load_settings(config)
    store = KeyStore(settings.secrets, state)
    names = [*(wearables or []), *([wearable] if wearable else [])]
    if not names:
        stop("which wearable? Give its id, such as: fallwatch unpair 0042", status=2)
    _check_names(names)
    unknown = False
    for name in names:
        wiped, bound = store.wipe(name), settings.resident_of(name)
        if bound is not None:
            settings = unbind_wearable(config, name)
        if wiped or bound is not None:
            say(f"Wearable {name} is unpaired; its key is wiped.")
        else:
            say(f"Wearable {name} is not known here.")
            unknown = True
    raise SystemExit(1 if unknown else 0)


def pairing_text(wearable: str, key: bytes) -> str:
    """Return what the QR code says: the wearable's id and key, for the wearable's own set-up page."""
    return f"FALLWATCH:1:{wearable}:{key.hex().upper()}"


def _bind(config: Path, settings: Settings, name: str, resident: str | None, *, spare: bool) -> ResidentSettings:
    """Return who wears it from now on; end where nobody is meant."""
    bound = settings.resident_of(name)
    if resident is None and bound is None:
        stop(f"wearable {name} has no resident in {config}; add --resident ID", status=1)
    if resident is not None and (bound is None or bound.id != resident or (spare and bound.spare != name)):
        from edge.cli.edit import bind_wearable

        if bound is not None and bound.id != resident:
            say(f"Wearable {name} is taken from resident {bound.id}, room {bound.room}.")
        bound = bind_wearable(config, resident, name, spare=spare).resident_of(name)
    assert bound is not None
    return bound


def _describe(config: Path, facts: dict[str, Any]) -> None:
    from edge.checked import build
    from edge.cli.edit import describe_wearable

    given = {key: value for key, value in facts.items() if value is not None}
    build(WearableSettings, given, config, "wearable.")  # says what is wrong, by key
    describe_wearable(config, given)


def _key(store: KeyStore, name: str, key_file: Path | None) -> bytes:
    """Return the key by which the wearable seals from now on, once it is stored."""
    from edge.keys import KeyUnusable

    try:
        if key_file is None:
            return store.make(name)
        key = bytes.fromhex(key_file.read_text(encoding="ascii").strip())
        store.put(name, key)
    except (KeyUnusable, OSError) as error:
        stop(f"wearable {name}: its key cannot be stored: {error}", status=1)
    except ValueError as error:
        stop(f"--key-file {key_file}: holds no key of 32 hexadecimal digits ({error})", status=2)
    return key


def show_key(name: str, key: bytes) -> None:
    """Show the key as a QR code. Whoever sees it can speak for the wearable."""
    import segno

    say(f"The key of wearable {name}, for its set-up page. Let nobody photograph it, and clear the screen after.")
    segno.make(pairing_text(name, key), error="m").terminal(compact=True)


def without_key(settings: Settings, store: KeyStore) -> list[str]:
    """Return the wearables of the settings that seal what they send and have no key yet."""
    known = set(store.wearables())
    worn = [w for r in settings.resident for w in r.wearables]
    return [w for w in worn if w not in known and settings.is_sealed(w)]


def _check_names(names: list[str]) -> None:
    for name in names:
        if not WEARABLE_PATTERN.fullmatch(name):
            stop(f"{name!r} is no wearable; use 1 to 8 letters, digits or '-', as printed on it", status=2)
