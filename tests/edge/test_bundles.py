"""Model bundles of a home: only what a trusted developer signed is installed and run; the way back is short."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundles import Bundles
from edge.detect.service import DetectService
from edge.detect.shadow import Trial
from edge.settings import load_settings
from models.bundle import (
    MOST_OCTETS,
    SIGNATURE,
    BundleRefused,
    key_id,
    newest,
    pack,
    read_files,
    sign,
    unpack,
    verify,
)
from tests.conftest import MakeBundle
from tests.edge.in_process import run_here

HERE = Path("here")
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}
SETTINGS = """
[home]
id = "site-7"

[[resident]]
id = "r12"
room = "12"
wearable = "0042"
"""


@dataclass(frozen=True)
class House:
    """A home's settings and state, and its command line."""

    config: Path
    state: Path
    run: Callable[..., tuple[Any, str, str]]

    def bundles(self) -> Bundles:
        return Bundles(load_settings(self.config), self.state)

    def fallwatch(self, *words: object) -> tuple[Any, str, str]:
        return self.run("--config", self.config, "--state", self.state, *words)

    def well(self, *words: object) -> str:
        status, out, err = self.fallwatch(*words)
        assert (status, err) == (0, ""), err
        return out

    def running(self) -> tuple[str | None, dict[str, str]]:
        """Return which model the detect service runs for the wrist, and which it refused."""
        service = DetectService(load_settings(self.config), self.state, self.state)
        judge = service._pipeline.wearers["0042"].judge
        return (None if judge is None else judge.scorer.card.name), service.refused


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> House:
    config = tmp_path / "etc/fallwatch.toml"
    config.parent.mkdir()
    config.write_text(SETTINGS)
    house = House(config, tmp_path / "state", lambda *words: run_here(monkeypatch, capsys, *words))
    house.bundles().trust(KEY.public_key())
    return house


@pytest.fixture
def packed(make_bundle: MakeBundle, tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a packed bundle, signed with `KEY`."""

    def write(name: str = "wrist-7", *, key: Ed25519PrivateKey = KEY, **card: Any) -> Path:
        folder = make_bundle(name, **card)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        (folder / SIGNATURE).write_bytes(sign(files, key, folder))
        file = tmp_path / f"{name}.fwmodel"
        file.write_bytes(pack(read_files(folder)))
        shutil.rmtree(folder)
        return file

    return write


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A signed bundle's files: a shipped one under another number."""
    folder = tmp_path_factory.mktemp("good") / "wrist-7"
    shutil.copytree(newest("wrist"), folder)
    card = json.loads((folder / "card.json").read_text()) | {"name": "wrist-7"}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "model.onnx").write_bytes(b"\x08\x09" * 500)  # shorter: nothing here loads it
    files = read_files(folder)
    return files | {SIGNATURE: sign(files, KEY, folder)}


# -- from the developer to the home and back ---------------------------------------------------------


def test_a_bundle_goes_from_the_developer_to_the_home_on_trial_into_use_and_back(
    home: House, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    folder, out = make_bundle("wrist-7"), tmp_path / "wrist-7.fwmodel"
    home.well("model", "keygen", "--out", tmp_path / "acme.pem")
    assert (tmp_path / "acme.pem").stat().st_mode & 0o777 == 0o600
    home.well("model", "sign", folder, "--key", tmp_path / "acme.pem")
    home.well("model", "pack", folder, "--out", out)
    assert "is not trusted here" in home.fallwatch("model", "install", out)[2]
    home.well("model", "trust", tmp_path / "acme.pub")
    assert len(home.well("model", "keys").split()) == 2
    assert "run it as a shadow for a week" in home.well("model", "install", out)
    assert home.running()[0] == newest("wrist").name

    home.well("model", "install", out, "--shadow")
    assert load_settings(home.config).detect.wrist_shadow == "wrist-7"
    assert "golden vectors" in home.well("model", "verify", "wrist-7")
    home.well("model", "use", "wrist-7")
    detect = load_settings(home.config).detect
    assert (detect.wrist_model, detect.wrist_former, detect.wrist_shadow) == ("wrist-7", "shipped", "")
    assert home.running() == ("wrist-7", {})
    listed = {line["model"]: line for line in map(json.loads, home.well("model", "list", "--json").splitlines())}
    assert (listed["wrist-7"]["use"], listed[newest("wrist").name]["from"]) == ("chosen", "shipped")

    home.well("model", "rollback")
    assert load_settings(home.config).detect.wrist_model == ""
    assert home.running() == (newest("wrist").name, {})
    assert home.fallwatch("model", "rollback")[0] == 1


def test_back_is_the_one_before_and_not_only_the_shipped_one(home: House, packed: Callable[..., Path]) -> None:
    for name in ("wrist-7", "wrist-8"):
        home.well("model", "install", packed(name))
        home.well("model", "use", name)
    home.well("model", "rollback", "wrist")
    assert load_settings(home.config).detect.wrist_model == "wrist-7"


def test_a_key_no_longer_trusted_ends_its_models_and_the_one_before_runs(
    home: House, packed: Callable[..., Path]
) -> None:
    home.bundles().trust(OTHER.public_key())
    for name, key in (("wrist-7", KEY), ("wrist-8", OTHER)):
        home.well("model", "install", packed(name, key=key))
        home.well("model", "use", name)
    home.well("model", "untrust", key_id(OTHER.public_key()))
    running, refused = home.running()
    assert running == "wrist-7"
    assert "which is not trusted here" in refused["wrist-8"]
    status, out, _ = home.fallwatch("model", "list")
    assert status == 1
    assert "wrist-8      chosen    installed  REFUSED" in out


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "golden.npz", SIGNATURE])
def test_an_installed_bundle_that_changed_is_refused_at_the_next_load(
    home: House, packed: Callable[..., Path], name: str
) -> None:
    home.well("model", "install", packed())
    home.well("model", "use", "wrist-7")
    path = home.state / "models/wrist-7" / name
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)
    running, refused = home.running()
    assert running == newest("wrist").name
    assert list(refused) == ["wrist-7"]
    trial = Trial(path.parent, "wrist", "wrist-2", ["0042"], check=home.bundles().check)
    trial.run()
    assert trial.cause is not None
    assert trial.cause.startswith("refused: ")


def test_a_bundle_under_another_name_is_refused(home: House, packed: Callable[..., Path]) -> None:
    home.well("model", "install", packed())
    (home.state / "models/wrist-7").rename(home.state / "models/wrist-9")
    assert "under another name" in home.fallwatch("model", "use", "wrist-9")[2]


# -- what must not get in ------------------------------------------------------------------------


def refused(files: dict[str, bytes]) -> str:
    """Return why these files are refused, packed as they are."""
    with pytest.raises(BundleRefused) as error:
        verify(unpack(pack(files), HERE), KEYS, HERE)
    return error.value.reason


@given(data=st.data())
@settings(max_examples=150)
def test_one_flipped_bit_anywhere_is_refused(good: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(good)))
    bit = data.draw(st.integers(0, 8 * len(good[name]) - 1))
    octets = bytearray(good[name])
    octets[bit // 8] ^= 1 << bit % 8
    assert verify(good, KEYS, HERE).name == "wrist-7"
    refused(good | {name: bytes(octets)})


@given(data=st.data())
@settings(max_examples=150)
def test_one_flipped_bit_of_the_packed_file_is_refused(good: dict[str, bytes], data: st.DataObject) -> None:
    octets = bytearray(pack(good))
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    octets[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BundleRefused):
        verify(unpack(bytes(octets), HERE), KEYS, HERE)


@given(octets=st.binary(max_size=3000))
def test_junk_is_refused(octets: bytes) -> None:
    with pytest.raises(BundleRefused):
        unpack(octets, HERE)


def test_no_signature_another_key_or_another_set_of_files_is_let_in(good: dict[str, bytes]) -> None:
    bare = {name: octets for name, octets in good.items() if name != SIGNATURE}
    assert refused(bare) == "is not signed"
    assert "not trusted here" in refused(bare | {SIGNATURE: sign(bare, OTHER, HERE)})
    forged = json.loads(sign(bare, OTHER, HERE)) | {"key": key_id(KEY.public_key())}
    text = json.dumps(forged, sort_keys=True, indent=1).encode() + b"\n"
    assert "its signature is not that of key" in refused(bare | {SIGNATURE: text})
    assert refused({n: o for n, o in good.items() if n != "card.md"}) == "card.md: not as it was signed"
    bare.pop("card.md")
    added = {SIGNATURE: sign(bare, KEY, HERE), "card.md": b"added"}
    assert refused(bare | added) == "card.md: not as it was signed"
    card = json.dumps(json.loads(good["card.json"]) | {"decision": {}}).encode()
    assert refused(good | {"card.json": card}) == "card.json: not as it was signed"
    assert refused({"card.json": b"{}"}) == "has no golden.npz, model.onnx"


def tar_of(*members: tuple[str, bytes, bytes], mode: str = "w") -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]  # any of its modes
            for name, kind, octets in members:
                member = tarfile.TarInfo(name)
                member.type, member.size = kind, len(octets)
                member.linkname = "/etc/passwd" if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
                tar.addfile(member, io.BytesIO(octets))
        return out.getvalue()


@pytest.mark.parametrize(
    "octets",
    [
        tar_of(("../card.json", tarfile.REGTYPE, b"{}")),
        tar_of(("/etc/fallwatch/fallwatch.toml", tarfile.REGTYPE, b"")),
        tar_of(("x" * 300, tarfile.REGTYPE, b"")),
        tar_of(("card.json", tarfile.SYMTYPE, b"")),
        tar_of(("card.json", tarfile.LNKTYPE, b"")),
        tar_of(("card.json", tarfile.FIFOTYPE, b"")),
        tar_of(("card.json", tarfile.REGTYPE, b"{}"), ("card.json", tarfile.REGTYPE, b"{}")),
        tar_of(*((str(i), tarfile.REGTYPE, b"") for i in range(10_000))),
        tar_of(("model.onnx", tarfile.REGTYPE, bytes(50 << 20)), mode="w:gz"),
        tar_of(("model.onnx", tarfile.REGTYPE, bytes(MOST_OCTETS))),
    ],
    ids=["up", "absolute", "long", "symlink", "hardlink", "pipe", "twice", "many", "bomb", "large"],
)
def test_paths_links_and_bombs_are_refused_soon_and_small(home: House, tmp_path: Path, octets: bytes) -> None:
    file = tmp_path / "x.fwmodel"
    file.write_bytes(octets)
    with pytest.raises(BundleRefused):
        home.bundles().install(file)
    assert [path for path in home.state.rglob("*") if path.is_file()] == []


def test_a_refusal_takes_little_time_and_memory(home: House, packed: Callable[..., Path]) -> None:
    file = packed()
    octets = bytearray(file.read_bytes())
    octets[2000] ^= 1
    file.write_bytes(octets + bytes(MOST_OCTETS - len(octets)))
    # VmHWM and not ru_maxrss, which begins with that of the process that forked.
    code = (
        "import atexit, runpy, sys, time; "
        "atexit.register(lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])); "
        "atexit.register(lambda: print(time.process_time())); "
        "sys.argv = ['fallwatch', *sys.argv[1:]]; runpy.run_module('edge.cli', run_name='__main__')"
    )
    words = ["--config", home.config, "--state", home.state, "model", "install", file]
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "model is refused" in done.stderr
    cpu_s, peak_kib = map(float, done.stdout.split())
    assert cpu_s < 1.0
    assert peak_kib < 50 << 10


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({"schema": 2}, "card schema 2 is not 1"),
        ({"preprocessing": 9}, "was made for preprocessing 9"),
        ({"clip_g": 2}, "gives other scores than its golden vectors"),
        ({"onnx_sha256": "0"}, "model.onnx is not the file"),
        ({"placement": "waist"}, "a bundle is called such as waist-7"),
    ],
)
def test_a_signature_alone_lets_nothing_in(
    home: House, packed: Callable[..., Path], card: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BundleRefused, match=reason):
        home.bundles().install(packed(**card))
    assert list(home.state.glob("models/*")) == []


def test_weights_in_a_file_of_their_own_are_refused(home: House, make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder = make_bundle("wrist-7", external=True)
    with pytest.raises(BundleRefused, match=r"'weight\.bin', which does not belong"):
        read_files(folder)
    (folder / "weight.bin").unlink()
    (folder / SIGNATURE).write_bytes(sign(read_files(folder), KEY, folder))
    (tmp_path / "x.fwmodel").write_bytes(pack(read_files(folder)))
    with pytest.raises(BundleRefused, match="onnxruntime cannot load it"):
        home.bundles().install(tmp_path / "x.fwmodel")


def test_an_older_one_than_runs_is_refused_unless_asked_for(home: House, packed: Callable[..., Path]) -> None:
    home.well("model", "install", packed("wrist-7"))
    home.well("model", "use", "wrist-7")
    file = packed("wrist-6")
    status, _, err = home.fallwatch("model", "install", file)
    assert status == 1
    assert "wrist-6 is older than wrist-7, which runs" in err
    home.well("model", "install", file, "--allow-older")
    with pytest.raises(BundleRefused, match="is shipped with fallwatch"):
        home.bundles().install(packed(newest("wrist").name), allow_older=True)


def test_another_bundle_of_the_same_name_is_refused_and_the_same_one_is_well(
    home: House, packed: Callable[..., Path]
) -> None:
    home.bundles().install(packed())
    home.bundles().install(packed())
    with pytest.raises(BundleRefused, match="another wrist-7 is installed"):
        home.bundles().install(packed(note="changed"))
    assert home.bundles().check(home.state / "models/wrist-7") is not None


@pytest.mark.parametrize("place", ["models.unpacked", "models.tried", "models.renamed"])
def test_killed_while_it_installs_the_former_runs_and_a_second_try_works(
    home: House, packed: Callable[..., Path], place: str
) -> None:
    home.well("model", "install", packed("wrist-7"))
    home.well("model", "use", "wrist-7")
    file = packed("wrist-8")
    command = [sys.executable, "-m", "edge.cli", "--config", home.config, "--state", home.state]
    killed = subprocess.run(
        list(map(str, [*command, "model", "install", file])),
        env={**os.environ, "FALLWATCH_FAILPOINTS": f"{place}=kill@1"},
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    assert home.running() == ("wrist-7", {})
    home.well("model", "install", file)
    home.well("model", "use", "wrist-8")
    assert sorted(path.name for path in (home.state / "models").iterdir()) == ["wrist-7", "wrist-8"]
    assert home.running() == ("wrist-8", {})
