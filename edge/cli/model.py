"""Commands for model bundles: a developer signs one, a home installs it, tries it, uses it, goes back."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import Config, Json, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_STATE, load_settings

if TYPE_CHECKING:
    from edge.bundles import Bundles

RESTART = "sudo systemctl restart fallwatch-detect"

model_app = typer.Typer(no_args_is_help=True, help="Model bundles: sign, install, try, use, go back.")
app.add_typer(model_app, name="model")

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Such as wrist-7.")]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """End with one line where a bundle is refused or a file cannot be written."""
    from models.bundle import BundleRefused

    try:
        yield
    except BundleRefused as error:
        stop(f"model is refused: {error}", status=1)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}; run as the user who owns the folder (sudo)", status=1)


def _bundles(config: Path, state: Path) -> Bundles:
    from edge.bundles import Bundles

    return Bundles(load_settings(config), state)


# -- for whoever makes models ----------------------------------------------------------------------


@model_app.command(epilog="Example: fallwatch model keygen --out acme.pem")
def keygen(
    out: Annotated[
        Path, typer.Option("--out", help="File of the private key, .pem; the public one goes beside it.")
    ],
) -> None:
    """Make a developer's key pair: the private half signs bundles, homes trust the public half."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from models.bundle import key_id

    public = out.with_suffix(".pub")
    for path in (out, public):
        if path.exists() or path == public == out:
            stop(f"{path}: is there already, and a key is never written over; name another with --out", status=2)
    key = Ed25519PrivateKey.generate()
    pair = {
        out: (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600),
        public: (key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644),
    }
    with _refusals():
        for path, (text, mode) in pair.items():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(text)
    say(f"Key {key_id(key.public_key())}. Keep {out} where nobody else can read it; homes get {public}.")
    say(f"Next: fallwatch model sign BUNDLE --key {out}")


@model_app.command(epilog="Example: fallwatch model sign models/wrist-2 --key acme.pem")
def sign(folder: Folder, key: Annotated[Path, typer.Option("--key", help="The private key.")]) -> None:
    """Sign every file of a bundle; writes signature.json into its folder."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from models import bundle

    try:
        private = load_pem_private_key(key.read_bytes(), None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("another kind")
    except OSError as error:
        stop(f"{key}: cannot be read ({error.strerror}); make one with fallwatch model keygen", status=2)
    except (ValueError, TypeError):
        stop(f"{key}: is no private key of fallwatch model keygen", status=2)
    with _refusals():
        files = bundle.read_files(folder)
        (folder / bundle.SIGNATURE).write_bytes(bundle.sign(files, private, folder))
    say(f"{folder} is signed with key {bundle.key_id(private.public_key())}.")
    say(f"Next: fallwatch model pack {folder} --out {folder.name}.fwmodel")


@model_app.command(epilog="Example: fallwatch model pack models/wrist-2 --out wrist-2.fwmodel")
def pack(folder: Folder, out: Annotated[Path, typer.Option("--out", help="The file to write, .fwmodel.")]) -> None:
    """Put a signed bundle into one file, the same octets each time."""
    from models import bundle

    with _refusals():
        files = bundle.read_files(folder)
        if bundle.SIGNATURE not in files:
            stop(f"{folder}: is not signed; run fallwatch model sign", status=1)
        out.write_bytes(bundle.pack(files))
    say(f"{out}: {out.stat().st_size} octets. Next, in a home: fallwatch model install {out.name} --shadow")


# -- keys of a home ----------------------------------------------------------------------------


@model_app.command(epilog="Example: fallwatch model trust acme.pub")
def trust(
    key: Annotated[Path, typer.Argument(metavar="KEY.pub", help="A developer's public key.")],
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Trust a developer: bundles signed with this key may be installed and run."""
    from models.bundle import read_public_key

    bundles = _bundles(config, state)
    try:
        public = read_public_key(key)
    except OSError as error:
        stop(f"{key}: cannot be read ({error.strerror})", status=2)
    except ValueError:
        stop(f"{key}: is no public key of fallwatch model keygen", status=2)
    with _refusals():
        name = bundles.trust(public)
    say(f"Key {name} is trusted. Compare that id with what the developer told you by telephone or on paper.")
    say("Next: fallwatch model install FILE --shadow")


@model_app.command(epilog="Example: fallwatch model untrust 3f2a91c07d5be664")
def untrust(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as fallwatch model keys lists it.")],
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Trust a developer no longer: what is installed of them is refused from the next start on."""
    with _refusals():
        found = _bundles(config, state).untrust(key)
    if not found:
        stop(f"no key {key} is trusted; see fallwatch model keys", status=1)
    say(f"Key {key} is no longer trusted. Next: {RESTART}")


@model_app.command(epilog="Example: fallwatch model keys --json")
def keys(as_json: Json = False, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """List the developers' keys that this home trusts."""
    bundles = _bundles(config, state)
    for key in (trusted := bundles.keys()):
        say(json.dumps({"key": key}) if as_json else key)
    if not as_json and not trusted:
        say("None: only the models that came with fallwatch may run. fallwatch model trust KEY.pub trusts one.")


# -- models of a home ---------------------------------------------------------------------------


@model_app.command(epilog="Example: fallwatch model install wrist-7.fwmodel --shadow")
def install(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As fallwatch model pack writes it.")],
    shadow: Annotated[bool, typer.Option("--shadow", help="Let it run beside the present one, on trial.")] = False,
    allow_older: Annotated[bool, typer.Option("--allow-older", help="Even if a newer one runs.")] = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Check a packed bundle in every respect and put it in place; what runs goes on running."""
    from edge.bundles import SHADOWED
    from edge.cli.edit import choose_models

    bundles = _bundles(config, state)
    with _refusals():
        signed = bundles.install(file, allow_older=allow_older)
    if bundles.running(signed.placement) == signed.name:
        say(f"{signed.name} is installed and chosen already. Next: fallwatch status")
        return
    say(f"{signed.name} is installed, signed with key {signed.key}. It does not run yet.")
    if signed.placement not in SHADOWED:
        if shadow:
            stop(f"a {signed.placement} model cannot run on trial; fallwatch model use {signed.name}", status=1)
        say(f"Next: fallwatch model use {signed.name}")
    elif shadow:
        choose_models(config, {f"{signed.placement}_shadow": signed.name})
        say(f"detect.{signed.placement}_shadow = {signed.name!r}: on trial beside the present one, calls nobody.")
        say(f"Next: {RESTART}; in a week fallwatch report --days 7, then fallwatch model use {signed.name}")
    else:
        say(f"Next: run it as a shadow for a week: fallwatch model install {file} --shadow")
        say(f"(that sets detect.{signed.placement}_shadow), or at once: fallwatch model use {signed.name}")


@model_app.command("list", epilog="Example: fallwatch model list --json")
def list_(as_json: Json = False, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """List shipped and installed models, who signed them, and which the settings choose."""
    from edge.bundles import PLACEMENTS, Choice
    from models.bundle import BundleRefused

    settings = load_settings(config)
    bundles = _bundles(config, state)
    lines: list[dict[str, Any]] = []
    for placement in PLACEMENTS:
        choice = Choice.of(settings, placement)
        uses = {choice.former: "former", choice.shadow: "on trial", bundles.running(placement): "chosen"}
        for folder in bundles.everything(placement):
            line = {
                "model": folder.name,
                "placement": placement,
                "use": uses.get(folder.name, ""),
                "refused": None,
            }
            try:
                signed = bundles.check(folder)
                line["from"] = f"key {signed.key}" if signed else "shipped"
            except BundleRefused as error:
                line |= {"from": "installed", "refused": error.reason}
            lines.append(line)
    for line in lines:
        told = f"{line['model']:12} {line['use']:9} {line['from']}"
        say(json.dumps(line) if as_json else f"{told}  REFUSED: {line['refused']}" if line["refused"] else told)
    if any(line["refused"] for line in lines):
        raise SystemExit(1)


@model_app.command(epilog="Example: fallwatch model verify wrist-2")
def verify(name: Name, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """Check a model's signature and hashes, and run its golden vectors."""
    with _refusals():
        signed = _verified(_bundles(config, state), name)
    say(f"{name} is well: {signed}, and its golden vectors give what they should.")


@model_app.command(epilog="Example: fallwatch model use wrist-2")
def use(name: Name, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """Let a model call staff from the next start on; what ran before is kept for fallwatch model rollback."""
    from edge.bundles import SHIPPED, Choice
    from edge.cli.edit import choose_models
    from models.bundle import NAME

    settings = load_settings(config)
    bundles = _bundles(config, state)
    with _refusals():
        _verified(bundles, name)
    placement = NAME.fullmatch(name)[1]  # type: ignore[index]  # as all that are verified
    choice = Choice.of(settings, placement)
    if choice.model == name:
        say(f"{name} is chosen already. Next: {RESTART}, if that has not been done; fallwatch status")
        return
    names = {f"{placement}_model": name, f"{placement}_former": choice.model or SHIPPED}
    if choice.shadow == name:
        names[f"{placement}_shadow"] = ""
    choose_models(config, names)
    say(f"{name} is chosen in place of {bundles.running(placement)}. Next: {RESTART}, then fallwatch status.")
    say(f"Back: fallwatch model rollback {placement}")


@model_app.command(epilog="Example: fallwatch model rollback wrist")
def rollback(
    placement: Annotated[
        str | None,
        typer.Argument(metavar="[PLACEMENT]", help="wrist, waist or camera; else the one that changed."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Go back to the model before the present one."""
    from edge.bundles import PLACEMENTS, SHIPPED, Choice
    from edge.cli.edit import choose_models

    settings = load_settings(config)
    changed = [p for p in PLACEMENTS if Choice.of(settings, p).former]
    if placement not in {None, *PLACEMENTS}:
        stop(f"{placement!r} is no placement; use one of {', '.join(PLACEMENTS)}", status=2)
    if placement is None and len(changed) > 1:
        stop(f"more than one was changed: name one of {', '.join(changed)}", status=2)
    back = placement or next(iter(changed), None)
    if back not in changed:
        stop(f"nothing to go back to{f' for {back}' if back else ''}; see fallwatch model list", status=1)
    former = Choice.of(settings, str(back)).former
    names = {f"{back}_model": "" if former == SHIPPED else former, f"{back}_former": ""}
    left = _bundles(config, state).running(str(back))
    choose_models(config, names)
    now = _bundles(config, state).running(str(back))
    say(f"{now} is chosen again, {left} stays installed. Next: {RESTART}, then fallwatch status.")


def _verified(bundles: Bundles, name: str) -> str:
    """Check a model in every respect, and return by whom it is vouched for.

    Raises:
        BundleRefused: it must not run.
    """
    from models.bundle import NAME, BundleRefused
    from models.selftest import selftest

    folder = bundles.place(name)
    if not NAME.fullmatch(name) or not folder.is_dir():
        raise BundleRefused(Path(name), "is neither shipped nor installed; see fallwatch model list")
    signed = bundles.check(folder)
    selftest(folder)
    return f"signed with key {signed.key}" if signed else "shipped with fallwatch"
