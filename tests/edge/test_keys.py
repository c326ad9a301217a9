from __future__ import annotations

import json
import logging
import multiprocessing
import stat
from pathlib import Path

import pytest

from edge.keys import KeyStore, KeyUnusable
from firmware_bridge.session import MAX_COUNTER, Counters, SealRefused
from firmware_bridge.wire import Identify, Proof, Prove, Status

STATUS = Status(87, 4083, 30, 1, 61)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "secrets", tmp_path / "state")


def test_a_key_that_was_made_is_loaded_and_wiped(store: KeyStore, tmp_path: Path) -> None:
    key = store.make("0042")
    assert len(key) == 16
    assert store.load("0042") == key
    assert store.wearables() == ("0042",)
    path = tmp_path / "secrets/wearables/0042.key"
    assert path.read_text() == key.hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert store.wipe("0042")
    assert store.load("0042") is None
    assert store.wearables() == ()
    assert not store.wipe("0042")
    assert list(path.parent.iterdir()) == []


def test_a_wiped_key_is_overwritten_before_its_name_goes(store: KeyStore, tmp_path: Path) -> None:
    store.make("0042")
    path = tmp_path / "secrets/wearables/0042.key"
    with path.open("rb") as held:
        store.wipe("0042")
        assert held.read() == bytes(33)


@pytest.mark.parametrize("name", ["wearable-0042.key", "wearables_0042.key"])
def test_a_key_from_systemds_credentials_is_found(store: KeyStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / name).write_text("00" * 16)
    assert store.load("0042") == bytes(16)
    assert store.wearables() == ("0042",)


@pytest.mark.parametrize("text", ["", "0011", "zz" * 16, "00" * 17])
def test_a_damaged_key_is_named_and_the_other_wearables_are_still_heard(
    store: KeyStore, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.make("0041")
    store.make("0042")
    (tmp_path / "secrets/wearables/0042.key").write_text(text)
    with pytest.raises(KeyUnusable, match=r"0042\.key"):
        store.load("0042")
    assert store.gateway(["0041", "0042", "0043"]).wearables == ("0041",)
    assert [r.levelno for r in caplog.records] == [logging.ERROR, logging.WARNING]


@pytest.mark.parametrize("wearable", ["", "..", "a/b", "123456789", "é"])
def test_no_path_leads_out_of_the_folder(store: KeyStore, wearable: str) -> None:
    for act in (store.load, store.make, store.wipe):
        with pytest.raises(ValueError, match="no wearable id"):
            act(wearable)


def test_counters_live_over_a_clean_stop_and_an_unclean_one(store: KeyStore) -> None:
    store.make("0042")
    device, gateway = store.simulated_wearable("0042"), store.gateway(["0042"])
    assert gateway.open(device.seal(STATUS)) is not None
    gateway.stop()
    gateway = store.gateway(["0042"])
    assert gateway.proofs_due(0.0) == []
    assert gateway.open(device.seal(STATUS)) is not None
    gateway = store.gateway(["0042"])  # no stop: power cut
    device = store.simulated_wearable("0042")
    assert device.boot == 2
    [(_, command)] = gateway.proofs_due(0.0)
    asked = device.open(command)
    assert isinstance(asked, Prove)
    assert gateway.open(device.seal(Proof(asked.challenge))) is not None
    assert gateway.open(device.seal(STATUS)) is not None


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "digit", "list"])
def test_lost_or_damaged_counters_are_no_crash_and_only_a_proof_helps(
    store: KeyStore, tmp_path: Path, damage: str
) -> None:
    store.make("0042")
    device, gateway = store.simulated_wearable("0042"), store.gateway(["0042"])
    old = [device.seal(STATUS) for _ in range(3)]
    assert all(gateway.open(packet) for packet in old)
    path = tmp_path / "state/counters.json"
    text = path.read_text()
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(
            {"empty": "", "cut": text[:-9], "digit": text.replace('"uplink": 6', '"uplink": 5'), "list": "[]"}[
                damage
            ]
        )
    gateway = store.gateway(["0042"])
    assert path.with_suffix(".damaged").exists() == (damage != "gone")
    assert not any(gateway.open(packet) for packet in old)
    assert not any(gateway.open(device.seal(STATUS)) for _ in range(100))
    [(_, command)] = gateway.proofs_due(0.0)
    asked = device.open(command)
    assert isinstance(asked, Prove)
    assert gateway.open(device.seal(Proof(asked.challenge))) is not None
    assert gateway.open(device.seal(STATUS)) is not None
    assert json.loads(path.read_text())["wearables"]["0042"]["uplink"] < MAX_COUNTER


def test_a_new_key_starts_afresh_and_a_gateway_with_the_old_one_cannot_spoil_it(store: KeyStore) -> None:
    store.make("0042")
    old_device, old_gateway = store.simulated_wearable("0042"), store.gateway(["0042"])
    old_gateway.open(old_device.seal(STATUS))
    store.make("0042")
    old_gateway.stop()
    gateway, device = store.gateway(["0042"]), store.simulated_wearable("0042")
    assert gateway.open(old_device.seal(STATUS)) is None
    assert gateway.open(device.seal(STATUS)) is not None


def test_a_key_brought_along_must_prove_itself_once(store: KeyStore, tmp_path: Path) -> None:
    key = bytes(range(16))
    store.put("0042", key)
    assert store.load("0042") == key
    assert len(store.gateway(["0042"]).proofs_due(0.0)) == 1
    before = (tmp_path / "state/counters.json").read_text()
    store.put("0042", key)  # the same again forgets nothing
    assert (tmp_path / "state/counters.json").read_text() == before
    with pytest.raises(ValueError, match="16 octets"):
        store.put("0042", b"short")


def test_a_disk_that_refuses_is_told_and_hides_no_packet(store: KeyStore, tmp_path: Path) -> None:
    store.make("0042")
    device, gateway = store.simulated_wearable("0042"), store.gateway(["0042"])
    state = tmp_path / "state"
    packets = [device.seal(STATUS) for _ in range(3)]
    state.rename(tmp_path / "aside")
    state.touch()
    assert all(gateway.open(packet) for packet in packets)
    assert gateway.save_failing
    with pytest.raises(SealRefused):
        gateway.seal("0042", Identify())
    gateway.stop()
    with pytest.raises(KeyUnusable):
        store.make("0043")
    with pytest.raises(KeyUnusable):
        store.simulated_wearable("0042").seal(STATUS)


def _hammer(secrets: Path, state: Path, wearable: str, n: int) -> None:
    store = KeyStore(secrets, state)
    store.make(wearable)
    for i in range(1, n + 1):
        gateway = store.gateway([wearable])
        gateway._save({wearable: Counters(i, i, clean=True)})


def test_two_processes_lose_none_of_each_others_counters(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    names = ("0041", "0042")
    both = [
        context.Process(target=_hammer, args=(tmp_path / "secrets", tmp_path / "state", name, 40))
        for name in names
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(30.0)
        assert process.exitcode == 0
    rows = json.loads((tmp_path / "state/counters.json").read_text())["wearables"]
    assert [rows[name]["uplink"] for name in names] == [40, 40]
