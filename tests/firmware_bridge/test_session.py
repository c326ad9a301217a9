"""Sealing, replay, restarts. The long runs of the two properties at the end:

python -m tests.firmware_bridge.test_session attacks 1000000
python -m tests.firmware_bridge.test_session histories 100000
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.session import (
    MAX_COUNTER,
    UPLINK_STEP,
    WINDOW,
    Counters,
    CountersNotSaved,
    Gateway,
    GatewaySession,
    SealRefused,
    WearableCounters,
    WearableSession,
)
from firmware_bridge.wire import (
    AcknowledgeButton,
    Button,
    Hello,
    Identify,
    Proof,
    Prove,
    Samples,
    Status,
    UplinkMessage,
    read_header,
)

KEY = bytes(range(16))
STATUS = Status(87, 4083, 30, 1, 61)


class Flash:
    """A wearable's flash."""

    def __init__(self) -> None:
        self.counters = WearableCounters()

    def start(self, wearable: str = "0042", key: bytes = KEY) -> WearableSession:
        return WearableSession(wearable, key, self.counters, save=self.save)

    def save(self, counters: WearableCounters) -> None:
        self.counters = counters


class Disk:
    """The Pi's disk."""

    def __init__(self) -> None:
        self.rows: dict[str, Counters] = {}
        self.writes = 0
        self.full = False

    def start(self, *wearables: str, key: bytes = KEY) -> Gateway:
        gateway = Gateway(self.save)
        for wearable in wearables or ("0042",):
            gateway.add(wearable, key, self.rows.get(wearable, Counters()))
        return gateway

    def save(self, rows: Mapping[str, Counters]) -> None:
        if self.full:
            raise CountersNotSaved("disk full")
        self.writes += 1
        self.rows |= rows


def prove(gateway: Gateway, device: WearableSession, now_s: float = 0.0) -> None:
    [(wearable, command)] = gateway.proofs_due(now_s)
    asked = device.open(command)
    assert wearable == device.wearable
    assert isinstance(asked, Prove)
    assert gateway.open(device.seal(Proof(asked.challenge))) == (wearable, Proof(asked.challenge))


def test_a_sealed_message_is_opened_once() -> None:
    device, gateway = Flash().start(), Disk().start()
    packet = device.seal(STATUS)
    assert gateway.open(packet) == ("0042", STATUS)
    assert gateway.open(packet) is None
    counts = gateway.session("0042").counts  # type: ignore[union-attr]
    assert (counts.opened, counts.stale, counts.forged) == (1, 1, 0)


def test_a_command_is_obeyed_once() -> None:
    device, gateway = Flash().start(), Disk().start()
    packet = gateway.seal("0042", Identify(5))
    assert device.open(packet) == Identify(5)
    assert device.open(packet) is None
    assert (device.counts.stale, device.last_command) == (1, 1)


def test_a_command_recorded_before_the_wearables_brown_out_is_not_obeyed_again() -> None:
    flash, gateway = Flash(), Disk().start()
    packet = gateway.seal("0042", Identify(5))
    assert flash.start().open(packet) == Identify(5)
    assert flash.start().open(packet) is None


def test_what_comes_from_elsewhere_is_counted_by_its_kind() -> None:
    gateway = Disk().start()
    assert gateway.open(Flash().start("0099").seal(STATUS)) is None
    assert gateway.open(Flash().start(key=bytes(16)).seal(STATUS)) is None
    assert gateway.open(b"noise") is None
    assert gateway.open(gateway.seal("0042", Identify())) is None  # reflected: the direction is part of the nonce
    assert (gateway.unknown, gateway.unreadable) == (1, 1)
    assert gateway.session("0042").counts.forged == 2  # type: ignore[union-attr]


def test_an_authentic_packet_that_is_no_message_is_counted_and_never_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, gateway = Flash().start(), Disk().start()
    packets = [device.seal(Identify())]  # type: ignore[arg-type]  # a wearable that commands
    monkeypatch.setattr("firmware_bridge.session.encode_message", lambda message: (0x02, b"\1\2\3"))
    packets.append(device.seal(STATUS))
    assert [gateway.open(packet) for packet in packets] == [None, None]
    assert gateway.session("0042").counts.malformed == 2  # type: ignore[union-attr]


@given(order=st.permutations(range(40)), again=st.lists(st.integers(0, 39)))
def test_packets_out_of_order_are_each_taken_once(order: list[int], again: list[int]) -> None:
    device, gateway = Flash().start(), Disk().start()
    packets = [device.seal(STATUS) for _ in range(40)]
    assert all(gateway.open(packets[i]) for i in order)
    assert not any(gateway.open(packets[i]) for i in again)


def test_a_packet_more_than_the_window_late_is_refused() -> None:
    device, gateway = Flash().start(), Disk().start()
    packets = [device.seal(STATUS) for _ in range(WINDOW + 1)]
    gateway.open(packets[-1])
    assert gateway.open(packets[0]) is None
    assert gateway.open(packets[1]) is not None


def test_a_huge_jump_of_the_counter_is_taken_and_cheap() -> None:
    gateway = Disk().start()
    for counter in (5, MAX_COUNTER - 1):
        device = WearableSession("0042", KEY, WearableCounters(uplink=counter), save=lambda _: None)
        assert gateway.open(device.seal(STATUS)) is not None


def test_all_wearables_share_one_write_in_sixty_four_packets() -> None:
    names = [f"{i:04}" for i in range(40)]
    disk = Disk()
    gateway, devices = disk.start(*names), [Flash().start(name) for name in names]
    for _ in range(10 * UPLINK_STEP):
        for device in devices:
            assert gateway.open(device.seal(STATUS)) is not None
    assert disk.writes <= 11


def test_nothing_is_taken_before_its_counter_is_covered_on_disk() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    for _ in range(300):
        packet = device.seal(STATUS)
        gateway.open(packet)
        assert disk.rows["0042"].uplink >= read_header(packet).counter
        assert not disk.rows["0042"].clean


def test_after_a_clean_stop_the_next_packet_is_taken_and_the_last_is_not() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    old = [device.seal(STATUS) for _ in range(10)]
    for packet in old:
        gateway.open(packet)
    gateway.stop()
    gateway = disk.start()
    assert gateway.proofs_due(0.0) == []
    assert not any(gateway.open(packet) for packet in old)
    assert gateway.open(device.seal(STATUS)) is not None


def test_after_an_unclean_stop_a_proof_opens_the_session() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    old = [device.seal(STATUS) for _ in range(10)]
    for packet in old[:5]:
        gateway.open(packet)
    gateway = disk.start()
    assert not any(gateway.open(packet) for packet in old)
    assert gateway.session("0042").counts.unproved == 10  # type: ignore[union-attr]
    prove(gateway, device)
    assert gateway.open(device.seal(STATUS)) is not None
    assert not any(gateway.open(packet) for packet in old)
    assert gateway.session("0042").proved  # type: ignore[union-attr]


def test_after_an_unclean_stop_a_counter_above_the_ceiling_opens_the_session() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    gateway.open(device.seal(STATUS))
    gateway = disk.start()
    taken = [gateway.open(device.seal(STATUS)) is not None for _ in range(2 * UPLINK_STEP)]
    assert taken == [False] * (disk_ceiling := UPLINK_STEP) + [True] * (2 * UPLINK_STEP - disk_ceiling)


def test_an_old_proof_opens_nothing() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    gateway.open(device.seal(STATUS))
    gateway = disk.start()
    [(_, command)] = gateway.proofs_due(0.0)
    asked = device.open(command)
    assert isinstance(asked, Prove)
    proof = device.seal(Proof(asked.challenge))
    gateway = disk.start()  # restarted meanwhile: another challenge
    assert gateway.open(proof) is None
    assert not gateway.session("0042").proved  # type: ignore[union-attr]


def test_challenges_are_repeated_while_an_unproved_wearable_is_heard_and_not_into_the_void() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    gateway.open(device.seal(STATUS))
    gateway = disk.start()
    assert len(gateway.proofs_due(0.0)) == 1
    assert gateway.proofs_due(100.0) == []
    gateway.open(device.seal(STATUS))
    assert len(gateway.proofs_due(100.5)) == 1
    gateway.open(device.seal(STATUS))
    assert gateway.proofs_due(101.0) == []
    assert len(gateway.proofs_due(102.5)) == 1


def test_an_unproved_wearable_stays_in_doubt_over_a_clean_stop() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    gateway.open(device.seal(STATUS))
    for _ in range(3):
        disk.start().stop()
        assert disk.rows["0042"].uplink == 1 + UPLINK_STEP
        assert not disk.rows["0042"].clean


def test_with_lost_counters_only_a_proof_opens_the_session() -> None:
    disk = Disk()
    disk.rows["0042"] = Counters(MAX_COUNTER, 1000, clean=False)
    flash = Flash()
    flash.counters = WearableCounters(uplink=5000, command=7)
    device, gateway = flash.start(), disk.start()
    assert not any(gateway.open(device.seal(STATUS)) for _ in range(500))
    prove(gateway, device)
    assert gateway.open(device.seal(STATUS)) is not None
    assert disk.rows["0042"].uplink < 6000  # ... and the disk knows better from now on


def test_a_pi_with_older_state_catches_up_with_its_own_commands() -> None:
    flash = Flash()
    flash.counters = WearableCounters(command=500)
    device, disk = flash.start(), Disk()
    gateway = disk.start()
    assert device.open(gateway.seal("0042", Identify())) is None
    gateway.open(device.seal(Hello(1, (1, 0, 0), 0, 16, 5000, last_command=device.last_command)))
    assert device.open(gateway.seal("0042", Identify())) == Identify()
    assert disk.rows["0042"].downlink > 500


def test_a_full_disk_hides_no_packet_and_sends_no_command() -> None:
    disk = Disk()
    device, gateway = Flash().start(), disk.start()
    disk.full = True
    assert all(gateway.open(device.seal(STATUS)) for _ in range(200))
    assert gateway.save_failing == "disk full"
    with pytest.raises(SealRefused):
        gateway.seal("0042", Identify())
    disk.full = False
    assert all(gateway.open(device.seal(STATUS)) for _ in range(2 * UPLINK_STEP))
    assert gateway.save_failing == ""
    assert disk.rows["0042"].uplink > 200
    assert device.open(gateway.seal("0042", Identify())) == Identify()


def test_used_up_counters_refuse_to_seal() -> None:
    device = WearableSession("0042", KEY, WearableCounters(MAX_COUNTER - 1, 0), save=lambda _: None)
    device.seal(STATUS)
    with pytest.raises(SealRefused, match="pair it again"):
        device.seal(STATUS)
    pi = GatewaySession("0042", KEY, Counters(0, MAX_COUNTER), reserve=lambda: True)
    with pytest.raises(SealRefused, match="pair it again"):
        pi.seal(Identify())
    with pytest.raises(SealRefused, match="no key"):
        Disk().start().seal("0099", Identify())


@pytest.mark.parametrize("key", [b"", bytes(15), bytes(32)])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="16 octets"):
        Disk().start(key=key)


def attack(n: int, seed: int) -> int:
    """Play n hostile packets, of the four kinds, to a gateway in good use; return how many it took."""
    generator = random.Random(seed)
    disk, flash = Disk(), Flash()
    device, stranger, gateway = flash.start(), Flash().start(key=bytes(16)), disk.start()
    alarm = Button(1, 1, 0, 1500)
    messages: list[UplinkMessage] = [STATUS, alarm, Samples(1, 0, 0, 5000, 16, 1, bytes(150))]
    heard: list[bytes] = []
    taken = 0
    for i in range(n):
        if i % 50 == 0:  # the good traffic goes on, and is never disturbed
            packet = device.seal(generator.choice(messages))
            assert gateway.open(packet) is not None
            heard.append(packet)
        if i % 5000 == 4999:  # restarts of every kind, with the proof still to come
            if generator.random() < 0.5:
                gateway.stop()
            gateway = disk.start()
            if gateway.session("0042").proved is False:  # type: ignore[union-attr]
                taken += sum(gateway.open(packet) is not None for packet in heard[-200:])
                prove(gateway, device)
        kind = i % 4
        packet = generator.choice(heard)
        if kind == 1:  # rolled back, or forward, without the key
            counter = generator.randrange(MAX_COUNTER)
            packet = packet[:10] + counter.to_bytes(4, "little") + packet[14:]
        elif kind == 2:
            packet = stranger.seal(alarm)
        elif kind == 3:
            bit = generator.randrange(8 * len(packet))
            changed = bytearray(packet)
            changed[bit // 8] ^= 1 << bit % 8
            packet = bytes(changed)
        taken += gateway.open(packet) is not None
    return taken


def test_no_replayed_rolled_back_wrong_key_or_bit_flipped_packet_is_taken() -> None:
    assert attack(40_000, seed=1) == 0


class PiCut(Exception):
    """The Pi's current went away."""


class WearableCut(Exception):
    """The wearable's battery browned out."""


def history(seed: int) -> int:
    """Live one history of power cuts, losses, replays and alarms on both sides; return the alarms raised.

    Fails if a nonce is used twice, a packet taken twice, or an alarm refused once the wearable is proved.
    """
    generator = random.Random(seed)
    nonces: set[bytes] = set()
    taken: set[bytes] = set()
    air: list[bytes] = []
    disk, flash = Disk(), Flash()
    cut = 0.0

    def maybe(kind: type[Exception]) -> None:
        if generator.random() < cut:
            raise kind

    def store_flash(counters: WearableCounters) -> None:
        maybe(WearableCut)  # before it is stored, or after
        flash.counters = counters
        maybe(WearableCut)

    def store_disk(rows: Mapping[str, Counters]) -> None:
        maybe(PiCut)
        disk.rows |= rows
        maybe(PiCut)

    def start_gateway() -> Gateway:
        gateway = Gateway(store_disk)
        gateway.add("0042", KEY, disk.rows.get("0042", Counters()))
        return gateway

    def start_device() -> WearableSession:
        return WearableSession("0042", KEY, flash.counters, save=store_flash)

    def sealed(direction: bytes, packet: bytes) -> bytes:
        assert direction + packet[2:14] not in nonces, "nonce used twice"
        nonces.add(direction + packet[2:14])
        return packet

    def say(message: UplinkMessage) -> bytes:
        packet = sealed(b"u", device.seal(message))
        air.append(packet)
        return packet

    def hear(packet: bytes) -> bool:
        if gateway.open(packet) is None:
            return False
        assert packet not in taken, "packet taken twice"
        taken.add(packet)
        return True

    def challenge() -> None:
        for _, packet in gateway.proofs_due(now_s):
            sealed(b"d", packet)
            asked = device.open(packet)
            if isinstance(asked, Prove) and generator.random() < 0.7:
                hear(say(Proof(asked.challenge)))

    device, gateway = start_device(), start_gateway()
    alarms = 0
    now_s = 0.0
    for _ in range(generator.randint(20, 80)):
        now_s += 3.0
        cut = 0.1 if generator.random() < 0.3 else 0.0
        try:
            match generator.randrange(8):
                case 0:
                    device = start_device()  # brown-out
                case 1:
                    gateway = start_gateway()  # power cut of the Pi
                case 2:
                    gateway.stop()
                    gateway = start_gateway()
                case 3 | 4:
                    for _ in range(generator.choice([1, 5, 70, 300])):
                        packet = say(STATUS)
                        if generator.random() < 0.8:
                            hear(packet)
                case 5 if air:
                    for packet in generator.choices(air, k=20):
                        was_taken = packet in taken
                        assert not (hear(packet) and was_taken)
                case 6:
                    challenge()
                case 7:
                    packet = say(Button(device.boot, 1, 0, 1500))
                    proved = gateway.session("0042").proved  # type: ignore[union-attr]
                    alarms += 1
                    assert hear(packet) or not proved, "an alarm was refused"
                    sealed(b"d", gateway.seal("0042", AcknowledgeButton(device.boot, 1)))
        except WearableCut:
            device = start_device()
        except PiCut:
            gateway = start_gateway()
    return alarms


def test_no_history_of_power_cuts_uses_a_nonce_twice_or_refuses_an_alarm() -> None:
    assert sum(history(seed) for seed in range(400)) > 400


if __name__ == "__main__":
    _, which, count = sys.argv
    if which == "attacks":
        said = f"{attack(int(count), seed=2)} of {count} hostile packets taken"
    else:
        said = f"{count} histories, {sum(history(seed) for seed in range(int(count)))} alarms: all held"
    sys.stdout.write(said + "\n")
