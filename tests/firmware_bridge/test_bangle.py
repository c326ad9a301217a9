"""The app for the Bangle.js 2 in a JavaScript engine, against our codec and session; no real watch."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from firmware_bridge import wire
from firmware_bridge.session import Counters, GatewaySession
from firmware_bridge.wire import (
    AcknowledgeButton,
    Button,
    Command,
    Configure,
    DongleAsk,
    DongleHello,
    DongleStatus,
    Downlink,
    Frame,
    FrameDecoder,
    Hello,
    Identify,
    Proof,
    Prove,
    Reassure,
    Samples,
    Status,
    Uplink,
    UplinkMessage,
    encode_frame,
)

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node, a JavaScript engine")

HERE = Path(__file__).resolve().parent
APP = HERE.parent.parent / "firmware_bridge" / "bangle"
DATA = HERE.parent / "data"
PAGE = (APP.parent / "PROTOCOL.md").read_text(encoding="utf-8")
EXAMPLES = [
    dict(line.split(": ", 1) for line in block.strip().splitlines())
    for block in re.findall(r"```example\n(.*?)```", PAGE, re.DOTALL)
]
SEALED = [example for example in EXAMPLES if "packet" in example]
KEY = bytes(range(16))
PAIRED = {"fallwatch.json": json.dumps({"wearable": "0042", "key": KEY.hex(), "fresh": 1})}
COUNTS_A_G = 4096  # at 8 g
RATE_HZ = 32768 / 655
LYING = [0, 0, COUNTS_A_G]
ASK = encode_frame(DongleAsk())
T = TypeVar("T")


class Engine:
    """The stand-in's process; one watch at a time."""

    def __init__(self) -> None:
        assert NODE is not None
        self._process = subprocess.Popen(
            [NODE, str(HERE / "bangle_stand_in.mjs"), str(APP)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, op: str, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **question}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "failed" not in answer, answer["failed"]
        return answer

    def wire(self, what: str, **question: Any) -> Any:
        return self.ask("wire", what=what, **question)["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


class Pi:
    """The far end: takes what the watch sends, as a dongle's port does."""

    def __init__(self, engine: Engine, storage: dict[str, str] | None = None, **how: Any) -> None:
        self.engine = engine
        self.frames: list[Frame] = []
        self.messages: list[UplinkMessage] = []
        self.packets: list[bytes] = []
        self.log: list[str] = []
        self.decoder = FrameDecoder()
        self.session = GatewaySession("0042", KEY, Counters(), reserve=lambda: True)
        self.take(engine.ask("start", storage=PAIRED if storage is None else storage, **how))

    def take(self, state: dict[str, Any]) -> None:
        self.state = state
        self.log += state["log"]
        assert not [line for line in state["log"] if line.startswith("error")], state["log"]
        for frame in self.decoder.feed(bytes.fromhex(state["tx"])):
            self.frames.append(frame)
            if isinstance(frame, Uplink):
                assert frame.rssi_dbm == -128
                self.packets.append(frame.packet)
                message = self.session.open(frame.packet)
                if message is not None:
                    self.messages.append(message)

    def run(self, seconds: float, **how: Any) -> None:
        self.take(self.engine.ask("run", seconds=seconds, **how))

    def set(self, **values: Any) -> None:
        self.take(self.engine.ask("set", values=values))

    def connect(self) -> None:
        self.take(self.engine.ask("link", up=True))
        self.send(ASK)

    def disconnect(self, lose: int = 0) -> None:
        self.take(self.engine.ask("link", up=False))

    def send(self, data: bytes) -> None:
        self.take(self.engine.ask("rx", hex=data.hex()))

    def command(self, command: Command) -> bytes:
        line = encode_frame(Downlink(self.session.seal(command)))
        self.send(line)
        return line

    def of(self, kind: type[T]) -> list[T]:
        return [message for message in self.messages if isinstance(message, kind)]

    def clean(self) -> bool:
        counts = self.session.counts
        return not (counts.forged or counts.stale or counts.malformed or self.decoder.bad_frames)


def xyz(samples: list[Samples]) -> list[tuple[int, ...]]:
    flat = [v for s in samples for v in memoryview(s.xyz).cast("h")]
    return [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]


def gaps(samples: list[Samples]) -> int:
    return sum(b.first - a.first - a.n for a, b in itertools.pairwise(samples))


def recording(path: Path) -> list[list[int]]:
    """Return a recording as the sensor's counts at 8 g, resampled to the watch's polls."""
    with path.open(encoding="utf-8") as lines:
        rows = [[float(v) for v in row] for row in csv.reader(ln for ln in lines if ln[0].isdigit())]
    out, i = [], 0
    for n in range(int((rows[-1][0] - rows[0][0]) * RATE_HZ)):
        while rows[i + 1][0] - rows[0][0] < n / RATE_HZ:
            i += 1
        out.append([max(-32768, min(32767, round(g * COUNTS_A_G))) for g in rows[i][1:4]])
    return out


@pytest.mark.parametrize("path", sorted(DATA.glob("*.csv")), ids=lambda p: p.stem)
def test_a_recording_worn_by_the_watch_arrives_whole(engine: Engine, path: Path) -> None:
    counts = recording(path)
    pi = Pi(engine)
    pi.connect()
    pi.run(len(counts) / RATE_HZ + 2, samples=counts)
    samples = pi.of(Samples)
    assert pi.clean()
    assert gaps(samples) == 0
    got = xyz(samples)
    assert len(got) >= len(counts)
    assert [list(s) for s in got[: len(counts)]] == counts
    assert {(s.range_g, s.rate_chz, s.n) for s in samples} == {(8, 5003, 25)}
    steps = {b.tick - a.tick for a, b in itertools.pairwise(samples)}
    assert all(abs(step - 25 * 655) <= 33 for step in steps)  # within a millisecond
    clipped = [any(abs(v) >= 32767 for v in memoryview(s.xyz).cast("h")) for s in samples]
    assert [s.clipped for s in samples] == clipped


def test_aes_agrees_with_the_library_on_many_blocks(engine: Engine) -> None:
    rng = random.Random(5)
    for _ in range(50):
        key, block = rng.randbytes(16), rng.randbytes(16)
        want = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)
        assert engine.wire("block", key=key.hex(), hex=block.hex()) == want.hex()


def octets(example: dict[str, str], name: str) -> str:
    return bytes.fromhex(example[name]).hex()


@pytest.mark.parametrize("example", SEALED, ids=lambda e: e["content"].split("(")[0])
def test_the_page_and_the_watch_seal_and_frame_alike(engine: Engine, example: dict[str, str]) -> None:
    packet, body = bytes.fromhex(example["packet"]), bytes.fromhex(example["plaintext"])
    known = {"wearable": example["wearable"], "key": octets(example, "key"), "counter": int(example["counter"])}
    if example["direction"] == "up":
        assert engine.wire("seal", type=packet[1], hex=body.hex(), **known) == packet.hex()
        assert engine.wire("frame", kind=0x10, hex="c4" + packet.hex()) == octets(example, "frame")
    else:
        assert engine.wire("frame", kind=0x20, hex=packet.hex()) == octets(example, "frame")
        assert engine.wire("unframe", parts=[octets(example, "frame")]) == [[0x20, packet.hex()]]
        assert engine.wire("open", hex=packet.hex(), **known) == engine.wire("command", hex=body.hex())
        assert engine.wire("open", hex=packet.hex(), **known)["action"]
        for at in range(len(packet)):
            broken = packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]
            assert engine.wire("open", hex=broken.hex(), **known) is None


def test_the_page_and_the_watch_write_messages_and_commands_alike(engine: Engine) -> None:
    shown: set[str] = set()
    for example in EXAMPLES:
        content = eval(example["content"], vars(wire))  # our own page
        name = type(content).__name__
        shown.add(name)
        fields = {f: getattr(content, f) for f in content.__dataclass_fields__}
        if name in ("Hello", "Samples", "Status", "Button"):
            if name == "Samples":
                fields |= {"n": content.n, "xyz": content.xyz.hex()}
            fields["firmware"] = list(fields.get("firmware", ()))
            assert engine.wire("message", name=name.lower(), message=fields) == octets(example, "plaintext")
        elif name == "DongleHello":
            body = engine.wire("dongleHello", serial=content.serial.decode())
            assert engine.wire("frame", kind=1, hex=body) == octets(example, "frame")
        elif name == "DongleStatus":
            body = engine.wire("dongleStatus", args=list(fields.values()))
            assert engine.wire("frame", kind=2, hex=body) == octets(example, "frame")
        elif name == "DongleAsk":
            assert engine.wire("unframe", parts=[octets(example, "frame")]) == [[0x21, ""]]
        elif name != "Proof":
            words = {"AcknowledgeButton": "acknowledge"}
            got = engine.wire("command", hex=octets(example, "plaintext"))
            assert got.pop("action") == words.get(name, name.lower())
            assert got == {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}
    assert len(shown) == len(EXAMPLES)


@pytest.mark.parametrize("body", ["", "01", "0105ff", "0200", "03", "06", "04000010", "04881303", "05ff"])
def test_a_command_that_breaks_its_table_is_refused(engine: Engine, body: str) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_message(wire.TYPE_COMMAND, bytes.fromhex(body))
    assert engine.wire("command", hex=body) is None


def test_frames_of_any_content_are_as_ours(engine: Engine) -> None:
    rng = random.Random(7)
    for n in (23, 60, 187, 246):
        for zeros in (0.0, 0.1, 1.0):
            packet = bytes(0 if rng.random() < zeros else rng.randrange(1, 256) for _ in range(n))
            line = encode_frame(Downlink(packet))
            assert engine.wire("frame", kind=0x20, hex=packet.hex()) == line.hex()
            cut = rng.randrange(len(line))
            junk = rng.randbytes(40).hex() + "00"
            assert engine.wire("unframe", parts=[junk, line[:cut].hex(), line[cut:].hex()]) == [
                [0x20, packet.hex()]
            ]


def test_a_sender_stops_at_the_last_counter(engine: Engine) -> None:
    assert engine.wire("last", key=KEY.hex()) == [True, False]


def test_it_greets_as_a_dongle_and_lives_every_second(engine: Engine) -> None:
    pi = Pi(engine)
    assert not pi.state["tx"]
    pi.connect()
    pi.run(65)
    assert isinstance(pi.frames[0], DongleHello)
    lives = [frame for frame in pi.frames if isinstance(frame, DongleStatus)]
    assert 64 <= len(lives) <= 65
    assert lives[-1].frames_received <= len(pi.packets)
    assert lives[-1].frames_dropped == 0
    hellos, states = pi.of(Hello), pi.of(Status)
    assert len(hellos) == 2
    assert len(states) == 3
    assert hellos[0] == Hello(1, (1, 0, 0), 2, 8, 5003)
    assert states[0].battery_pct == 80
    assert states[0].temperature_c == 31
    assert states[-1].uptime_s == 60
    pi.send(ASK)
    pi.run(1)
    assert sum(isinstance(frame, DongleHello) for frame in pi.frames) == 2
    assert pi.clean()


def test_it_speaks_on_its_own_when_nobody_asks(engine: Engine) -> None:
    pi = Pi(engine)
    pi.take(engine.ask("link", up=True))
    pi.run(1.5)
    assert not pi.frames
    pi.run(2)
    assert pi.of(Samples)
    assert gaps(pi.of(Samples)) == 0
    assert pi.of(Samples)[0].first == 0


def test_the_console_is_not_to_be_reached_by_radio(engine: Engine) -> None:
    pi = Pi(engine)
    assert pi.state["console"] is None
    pi.connect()
    pi.send(b"\x03\x10reset();\n")
    pi.run(1)
    assert pi.state["console"] is None
    assert pi.of(Samples)
    pi.take(engine.ask("emit", who="E", event="kill"))
    assert pi.state["console"] == "Bluetooth"


@pytest.mark.parametrize("in_flight", [0, 5])
def test_a_link_lost_for_20_s_loses_nothing(engine: Engine, in_flight: int) -> None:
    """``in_flight`` frames before the loss were written by the watch but never arrived."""
    counts = [[i, -i, 4096] for i in range(3000)]
    pi = Pi(engine)
    pi.connect()
    pi.run(10 - in_flight, samples=counts)
    engine.ask("run", seconds=in_flight)  # nobody hears this
    pi.disconnect()
    pi.run(20)
    pi.connect()
    back = len(pi.messages)
    pi.run(30)
    samples = sorted({s.first: s for s in pi.of(Samples)}.values(), key=lambda s: s.first)
    assert gaps(samples) == 0
    assert samples[0].first == 0
    got = xyz(samples)
    assert [list(s) for s in got] == counts[: len(got)]
    assert len(got) >= len(counts) - 50
    firsts = [s.first for s in pi.messages[back:] if isinstance(s, Samples)]
    assert firsts == sorted(firsts)  # a late batch behind a fresh one would be given up by the Pi
    assert isinstance(pi.messages[back], Hello)
    assert not pi.session.counts.forged
    assert not pi.session.counts.stale


def test_the_backlog_drains_while_fresh_samples_come(engine: Engine) -> None:
    pi = Pi(engine)
    pi.run(30)
    pi.connect()
    pi.run(15)
    newest = pi.of(Samples)[-1]
    assert newest.tick / 32768 > 45 - 1.5  # 30 s of backlog were caught up within 15


def test_a_full_ring_drops_the_oldest_and_says_so(engine: Engine) -> None:
    pi = Pi(engine)
    pi.run(100)
    pi.connect()
    pi.run(30)
    samples = pi.of(Samples)
    assert gaps(samples) == 0
    kept_s = 100 - samples[0].tick / 32768
    assert 30 <= kept_s <= 41
    lives = [frame for frame in pi.frames if isinstance(frame, DongleStatus)]
    assert lives[-1].frames_dropped == samples[0].first / 25


def test_readings_the_watch_was_too_busy_for_are_gaps(engine: Engine) -> None:
    counts = [[i, 0, 4096] for i in range(500)]
    pi = Pi(engine)
    pi.connect()
    pi.run(12, samples=counts, stalls=[[2.005, 0.015], [4.003, 0.09], [6.001, 1.2]])
    samples = pi.of(Samples)
    for run in samples:  # each value at its own index, whatever was lost
        for i, (x, _, _) in enumerate(xyz([run])):
            assert x == (run.first + i if run.first + i < 500 else 499)
        assert abs(run.tick - samples[0].tick - 655 * run.first) < 655 / 4  # and at its own time
    assert 4 + 58 <= gaps(samples) <= 4 + 61
    assert pi.clean()


def test_setting_the_clock_moves_no_tick(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(5)
    for offset_s in (1.8e9, 1.6e9):
        pi.set(offset_s=offset_s)
        pi.run(5)
    samples = pi.of(Samples)
    assert gaps(samples) == 0
    steps = [(b.tick - a.tick) / 655 for a, b in itertools.pairwise(samples)]
    assert all(23.9 < step < 25.1 for step in steps)  # a period, at most, for each setting
    assert sum(step < 24.5 for step in steps) <= 2


def test_commands_are_obeyed_once(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(2)
    line = pi.command(Identify(3))
    pi.run(5)
    assert pi.log.count("buzz 500") == 3
    assert "light 1" in pi.log
    assert pi.log[-1] == "light 0"
    assert pi.of(Hello)[-1].last_command == 1
    pi.send(line)  # recorded and played again
    pi.run(5)
    assert pi.log.count("buzz 500") == 3
    pi.command(Reassure())
    pi.run(1)
    assert "buzz 200" in pi.log
    assert "STAFF KNOW" in pi.state["screen"]
    assert pi.of(Hello)[-1].last_command == 2


def test_a_challenge_is_answered_at_once_then_hello(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(3)
    before = len(pi.messages)
    pi.command(Prove(b"\x00\xff345678"))
    pi.run(1)
    answers = [m for m in pi.messages[before:] if not isinstance(m, Samples | Status)]
    assert answers[0] == Proof(b"\x00\xff345678")
    assert isinstance(answers[1], Hello)


def test_a_rate_it_can_do_is_taken_another_is_not(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(2)
    pi.command(Configure(2500, 8))
    pi.run(3)
    assert pi.of(Hello)[-1].rate_chz == 2499
    assert pi.of(Samples)[-1].n == 12
    for refused in (Configure(10000, 8), Configure(5000, 16)):
        told = len(pi.of(Hello))
        pi.command(refused)
        pi.run(1)
        assert len(pi.of(Hello)) == told + 1
        assert pi.of(Hello)[-1].rate_chz == 2499
    assert dict(pi.state["registers"])["24"] == 0xF4  # on, 8 g
    pi.command(Configure(5000, 8))
    pi.run(2)
    assert pi.of(Hello)[-1].rate_chz == 5003
    assert pi.clean()


def test_a_long_press_calls_every_second_until_acknowledged(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(3)
    pi.set(button=True)
    pi.run(1)
    assert not pi.of(Button)
    pi.run(1.5)
    assert "HELP SENT" in pi.state["screen"]
    assert pi.of(Samples)[-1].flags & wire.BUTTON_HELD
    pi.set(button=False)
    pi.run(5)
    presses = pi.of(Button)
    assert {(b.boot, b.press) for b in presses} == {(1, 1)}
    assert 5 <= len(presses) <= 8
    assert presses[0].held_ms >= 1500
    assert 2200 <= presses[-1].held_ms <= 2800
    assert abs(presses[0].tick / 32768 - 3.1) < 0.2
    pi.command(AcknowledgeButton(1, 2))  # another's
    pi.run(2)
    assert len(pi.of(Button)) > len(presses)
    pi.command(AcknowledgeButton(1, 1))
    pi.run(1)
    told = len(pi.of(Button))
    pi.run(5)
    assert len(pi.of(Button)) == told
    assert "HELP HEARD" in pi.state["screen"]
    assert not pi.of(Samples)[-1].flags & wire.BUTTON_HELD
    pi.set(button=True)
    pi.run(3)
    assert pi.of(Button)[-1].press == 2


def test_a_press_in_a_dead_spot_is_told_first_on_return(engine: Engine) -> None:
    pi = Pi(engine)
    pi.set(button=True)
    pi.run(2)
    pi.set(button=False)
    pi.run(10)
    assert "HELP: CALLING" in pi.state["screen"]
    pi.connect()
    pi.run(1)
    assert any(isinstance(m, Button) for m in pi.messages[:2])


def test_acknowledged_while_still_held_is_no_new_press(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.set(button=True)
    pi.run(3)
    pi.command(AcknowledgeButton(1, 1))
    pi.run(1)
    told = len(pi.of(Button))
    pi.run(5)
    assert len(pi.of(Button)) == told


def moving(seconds: float) -> list[list[int]]:
    return [[0, 0, 4096 + 700 * (i % 2)] for i in range(int(seconds * RATE_HZ))]


def test_worn_is_motion_or_skin_and_never_the_charger(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(5)
    assert not pi.of(Samples)[-1].worn  # lies still since its start: not known to be worn
    pi.run(10, samples=moving(5))
    assert pi.of(Samples)[-1].worn
    pi.set(skin=True)
    pi.run(640)
    assert pi.of(Samples)[-1].worn
    assert "hrm 1" in pi.log
    pi.set(skin=False)
    pi.run(640)
    assert not pi.of(Samples)[-1].worn
    assert not pi.of(Status)[-1].worn
    on_s = pi.log.count("hrm 1") * 10
    assert on_s <= 10 * 6
    assert not pi.state["hrm"]
    pi.set(charging=True)
    pi.run(31, samples=moving(31))
    assert pi.of(Samples)[-1].flags == wire.CHARGING
    assert pi.of(Status)[-1].flags == wire.CHARGING
    pi.set(battery=7)
    pi.run(31)
    assert pi.of(Status)[-1].battery_pct == 7


def test_the_launcher_opens_on_the_charger_only(engine: Engine) -> None:
    pi = Pi(engine)
    pi.take(engine.ask("emit", who="Bangle", event="swipe"))
    assert "launcher" not in pi.log
    pi.set(charging=True, trash=2_000_000)
    pi.take(engine.ask("emit", who="Bangle", event="swipe"))
    assert "launcher" in pi.log
    pi.set(charging=False)
    pi.set(charging=True)
    assert "compact" in pi.log


def test_a_wrong_key_is_refused_both_ways(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    other = GatewaySession("0042", bytes(16), Counters(), reserve=lambda: True)
    pi.send(encode_frame(Downlink(other.seal(Identify(3)))))
    pi.run(3)
    assert "buzz 500" not in pi.log
    assert pi.of(Hello)[-1].last_command == 0
    assert pi.packets
    assert all(other.open(packet) is None for packet in pi.packets)


def test_garbage_by_radio_is_neither_obeyed_nor_harmful(engine: Engine) -> None:
    rng = random.Random(11)
    pi = Pi(engine)
    pi.connect()
    pi.run(1)
    good = encode_frame(Downlink(pi.session.seal(Identify(9))))
    for _ in range(300):
        kind = rng.randrange(4)
        if kind == 0:
            junk = rng.randbytes(rng.randrange(400))
        elif kind == 1:
            junk = bytes(rng.randrange(1, 256) for _ in range(rng.randrange(600)))
        elif kind == 2:
            junk = encode_frame(Downlink(rng.randbytes(rng.randrange(23, 240))))
        else:
            at = rng.randrange(len(good))
            junk = good[:at] + bytes([good[at] ^ rng.randrange(1, 256)]) + good[at + 1 :]
        pi.send(junk)
    pi.send(b"\0")
    pi.run(3)
    assert "buzz 500" not in pi.log
    assert gaps(pi.of(Samples)) == 0
    pi.send(good)
    pi.run(1)
    assert "buzz 500" in pi.log


def nonces(packets: list[bytes]) -> list[int]:
    return [int.from_bytes(packet[10:14], "little") for packet in packets]


def test_no_nonce_is_used_twice_wherever_the_power_goes(engine: Engine) -> None:
    rng = random.Random(3)
    cuts = obeyed = 0
    for _ in range(20):
        storage, seen, played, downlink = dict(PAIRED), set[int](), list[bytes](), 0
        for _ in range(6):
            how = rng.choice(("before", "erased", "torn"))
            pi = Pi(engine, storage, cut_at=rng.randrange(1, 7), cut_how=how)
            pi.session = GatewaySession("0042", KEY, Counters(downlink=downlink), reserve=lambda: True)
            if not pi.state["dead"]:
                pi.connect()
                for line in played:  # whatever was obeyed before is not obeyed again
                    pi.send(line)
                assert "buzz 200" not in pi.log
            for _ in range(rng.randrange(1, 4)):
                if not pi.state["dead"]:
                    pi.run(rng.uniform(0.5, 9))
                if not pi.state["dead"]:
                    downlink += 1
                    before = len(pi.log)
                    line = pi.command(Reassure())
                    if "buzz 200" in pi.log[before:]:
                        played.append(line)
            used = nonces(pi.packets)
            assert used == sorted(used)
            assert not seen & set(used)
            seen |= set(used)
            storage = pi.state["storage"]
            cuts += pi.state["dead"]
            if "fallwatch.json" not in storage or not storage["fallwatch.json"].endswith("}"):
                storage = {
                    **storage,
                    **PAIRED,
                }  # power went while it was paired: it is paired again, with that key
            else:
                assert "PAIR AGAIN" not in pi.state["screen"]
        obeyed += len(played)
    assert cuts > 60
    assert obeyed > 60


def test_lost_counters_silence_it_and_a_new_key_starts_anew(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(60)
    storage = pi.state["storage"]
    kept = json.loads(storage["fallwatch.json"])
    assert "fresh" not in kept
    lost = Pi(engine, {"fallwatch.json": storage["fallwatch.json"]})
    lost.connect()
    lost.run(5)
    assert "PAIR AGAIN" in lost.state["screen"]
    assert not lost.frames
    again = Pi(engine, {**storage, **PAIRED})  # the same code scanned a second time
    again.connect()
    again.run(2)
    assert min(nonces(again.packets)) > max(nonces(pi.packets))
    assert again.of(Hello)[0].boot == 2
    new = bytes(range(16, 32))
    paired = json.dumps({"wearable": "0042", "key": new.hex(), "fresh": 1})
    fresh = Pi(engine, {**storage, "fallwatch.json": paired})
    fresh.session = GatewaySession("0042", new, Counters(), reserve=lambda: True)
    fresh.connect()
    fresh.run(2)
    assert min(nonces(fresh.packets)) == 1
    assert fresh.of(Hello)[0].boot == 1
    assert KEY.hex() not in json.dumps(fresh.state["storage"])


def test_a_command_that_cannot_be_stored_is_not_obeyed(engine: Engine) -> None:
    pi = Pi(engine)
    pi.connect()
    pi.run(2)
    pi.set(full=True)
    pi.command(Identify(3))
    pi.run(3)
    assert "buzz 500" not in pi.log
    pi.run(60)
    sealed = len(pi.packets)
    pi.run(10)
    assert len(pi.packets) == sealed <= 128
    assert "CANNOT SEND" in pi.state["screen"]
    pi.set(full=False)
    pi.run(30)
    assert len(pi.packets) > sealed
    assert len(set(nonces(pi.packets))) == len(pi.packets)


@pytest.mark.parametrize(
    "paired", [{}, {"wearable": "0042"}, {"wearable": "a b", "key": KEY.hex()}, {"wearable": "0042", "key": "00"}]
)
def test_without_a_key_it_says_so_and_sends_nothing(engine: Engine, paired: dict[str, str]) -> None:
    pi = Pi(engine, {"fallwatch.json": json.dumps(paired)})
    pi.connect()
    pi.run(5)
    assert "NOT PAIRED" in pi.state["screen"]
    assert not pi.frames
    assert pi.state["console"] == "Bluetooth"  # so that it can be paired


def test_without_the_watchs_own_cipher_it_sends_nothing(engine: Engine) -> None:
    pi = Pi(engine, native=False)
    pi.connect()
    pi.run(5)
    assert "OLD FIRMWARE" in pi.state["screen"]
    assert not pi.frames


@pytest.mark.parametrize("name", ["wire.js", "app.js", "boot.js"])
def test_the_code_keeps_to_what_espruino_runs(name: str) -> None:
    assert NODE is not None
    subprocess.run([NODE, "--check", str(APP / name)], check=True, timeout=20)
    text = (APP / name).read_text(encoding="utf-8")
    code = re.sub(r'"(?:\\.|[^"\\])*"|/\*.*?\*/|//[^\n]*', "", text, flags=re.DOTALL)
    newer = (
        r"\b(class|async|await|let|const|yield|import|export|BigInt|of)\b|=>|\?\.|\?\?|\.\.\.|`|\*\*|#\w|\d+n\b"
    )
    assert not re.search(newer, code)


def test_the_pairing_page_loads_nothing_and_writes_what_the_app_reads() -> None:
    page = (APP / "pair.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|https?://|@import|fetch\(", page)
    assert "6e400002-b5a3-f393-e0a9-e50e24dcca9e" in page
    [pattern] = re.findall(r"/(\^FALLWATCH.*?\$)/i?", page)
    match = re.match(pattern, f"FALLWATCH:1:0042:{KEY.hex().upper()}")
    assert match
    assert match[1] == "0042"
    assert bytes.fromhex(match[2]) == KEY
    assert not re.match(pattern, f"FALLWATCH:2:0042:{KEY.hex()}")
    assert not re.match(pattern, f'FALLWATCH:1:00"42:{KEY.hex()}')


def test_the_metadata_names_files_that_exist() -> None:
    meta = json.loads((APP / "metadata.json").read_text(encoding="utf-8"))
    assert {file["url"] for file in meta["storage"]} == {"app.js", "wire.js", "boot.js"}
    assert all((APP / file["url"]).is_file() for file in meta["storage"])
    assert meta["type"] == "clock"
    assert meta["supports"] == ["BANGLEJS2"]
