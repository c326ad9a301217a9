"""The C code for firmware against the Python codec, under the sanitizers of addresses and undefined behaviour."""

from __future__ import annotations

import random
import re
import shutil
import string
import struct
import subprocess
from binascii import crc_hqx
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from cobs import cobs  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given
from hypothesis import strategies as st

import firmware_bridge
from firmware_bridge import wire
from firmware_bridge.session import (
    MAX_COUNTER,
    Counters,
    GatewaySession,
    SealRefused,
    WearableCounters,
    WearableSession,
)
from firmware_bridge.wire import (
    AcknowledgeButton,
    Button,
    Command,
    Configure,
    DongleAsk,
    Frame,
    FrameDecoder,
    Hello,
    Identify,
    Message,
    Proof,
    Prove,
    Reassure,
    Samples,
    Status,
    Uplink,
    UplinkMessage,
    WireError,
    decode_message,
    encode_frame,
    encode_message,
    read_header,
)
from tests.firmware_bridge.test_protocol_page import EXAMPLES, SEALED, name
from tests.firmware_bridge.test_wire import eight, frames, lines, messages, range_g, rate_chz, u8, u16

CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler: no cc is installed")

SOURCES = Path(firmware_bridge.__file__).parent / "c"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", f"-I{SOURCES}"]
SANITIZED = ["-g1", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KEY = bytes(range(16))
NEW, NEW_HERE = WearableCounters(), Counters()
STATUS = Status(87, 4083, 30, 1, 61)
KINDS: dict[type, int] = {
    wire.Hello: 0x0100,
    wire.Samples: 0x0200,
    wire.Status: 0x0300,
    wire.Button: 0x0400,
    wire.Proof: 0x0500,
    wire.Identify: 0x2001,
    wire.AcknowledgeButton: 0x2002,
    wire.Prove: 0x2003,
    wire.Configure: 0x2004,
    wire.Reassure: 0x2005,
    wire.DongleHello: 0x01,
    wire.DongleStatus: 0x02,
    wire.Uplink: 0x10,
    wire.Downlink: 0x20,
    wire.DongleAsk: 0x21,
}
uplinks = messages.filter(lambda message: isinstance(message, UplinkMessage))
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Identify, u8),
    st.builds(AcknowledgeButton, u16, u16),
    st.builds(Prove, eight),
    st.builds(Configure, rate_chz, range_g),
    st.just(Reassure()),
)
counters = st.one_of(st.integers(1, 200), st.integers(1, MAX_COUNTER), st.just(MAX_COUNTER))
ids = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=8)
keys = st.binary(min_size=16, max_size=16)


def octets(data: bytes) -> str:
    return data.hex() or "-"


def words(content: Message | Frame) -> str:
    """Return a message or frame as the driver reads and says it."""
    said = [str(KINDS[type(content)])]
    for field in fields(content):
        value = getattr(content, field.name)
        if isinstance(content, Samples) and field.name == "xyz":
            said += map(str, (content.n, *struct.unpack(f"<{3 * content.n}h", value)))
        else:
            said.append(str(value) if isinstance(value, int) else octets(bytes(value)))
    return " ".join(said)


class Driver:
    """The C code behind a pipe: see c_wire_driver.c for its requests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, request: str) -> str:
        [answer] = self.ask_all([request])
        return answer

    def ask_all(self, requests: list[str]) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answers = []
        for at in range(0, len(requests), 50):  # so few that neither pipe fills while the other is written
            some = requests[at : at + 50]
            self._process.stdin.write("\n".join(some) + "\n")
            self._process.stdin.flush()
            for request in some:
                answer = self._process.stdout.readline()
                assert answer.endswith("\n"), f"the C code fell over at {request}"
                answers.append(answer[:-1])
        return answers

    def start(self, counters: WearableCounters = NEW, wearable: str = "0042", key: bytes = KEY) -> None:
        request = f"start {wearable} {key.hex()} {counters.uplink} {counters.command} {counters.boot}"
        assert self.ask(request) == "OK"

    def seal(self, message: Message) -> str:
        return self.ask(f"seal 246 {words(message)}")

    def flash(self) -> WearableCounters:
        result, *said = self.ask("flash").split()
        assert result == "OK"
        return WearableCounters(*map(int, said))


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    assert CC is not None
    program = tmp_path_factory.mktemp("c") / "driver"
    driver = Path(__file__).with_name("c_wire_driver.c")
    sources = [*sorted(SOURCES.glob("*.c")), driver]
    subprocess.run([CC, *STRICT, *SANITIZED, *sources, "-o", program], check=True, timeout=100)
    pipe = subprocess.PIPE
    with subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True, encoding="ascii") as process:
        yield Driver(process)
        process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        assert process.wait(10) == 0  # no leak either


def pi(counters: Counters = NEW_HERE, wearable: str = "0042", key: bytes = KEY) -> GatewaySession:
    return GatewaySession(wearable, key, counters, reserve=lambda: True)


def opened(said: str, session: GatewaySession) -> UplinkMessage | None:
    result, packet = said.split()
    assert result == "OK"
    return session.open(bytes.fromhex(packet))


def test_a_wearable_in_c_and_the_pi_understand_each_other(c: Driver) -> None:
    c.start()
    session = pi()
    assert opened(c.seal(STATUS), session) == STATUS
    prove = Prove(bytes(range(8)))
    assert c.ask(f"open {session.seal(prove).hex()}") == f"OK {words(prove)}"
    assert opened(c.seal(Proof(prove.challenge)), session) == Proof(prove.challenge)


# --- the page's examples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("example", SEALED, ids=name)
def test_the_page_and_the_c_code_seal_alike(example: dict[str, str], c: Driver) -> None:
    packet, plaintext = bytes.fromhex(example["packet"]), bytes.fromhex(example["plaintext"])
    message = decode_message(packet[1], plaintext)
    assert repr(message) == example["content"]
    assert c.ask(f"encode {len(plaintext)} {words(message)}") == f"OK {packet[1]} {plaintext.hex()}"
    assert c.ask(f"decode {packet[1]} {plaintext.hex()}") == f"OK {words(message)}"
    assert c.ask(f"header {packet.hex()}") == f"OK {packet[1]} {example['wearable']} {example['counter']}"
    key, counter = bytes.fromhex(example["key"]), int(example["counter"])
    c.start(WearableCounters(counter - 1, counter - 1), example["wearable"], key)
    if example["direction"] == "up":
        assert c.seal(message) == f"OK {packet.hex()}"
        assert c.ask(f"open {packet.hex()}") == "FORGED"  # played back to the wearable
    else:
        assert c.ask(f"open {packet.hex()}") == f"OK {words(message)}"
        nonce = b"\2" + packet[2:14]  # the wearable has no code to seal a command, but the same CCM
        said = c.ask(f"ccm_seal {key.hex()} {nonce.hex()} {packet[:14].hex()} {plaintext.hex()}")
        assert packet[14:].hex() == said.removeprefix("OK ").replace(" ", "")


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_the_page_and_the_c_code_frame_alike(example: dict[str, str], c: Driver) -> None:
    line = bytes.fromhex(example["frame"])
    [frame] = FrameDecoder().feed(line)
    assert c.ask("line") == "OK"
    assert c.ask(f"feed {line.hex()}") == f"OK ; {words(frame)} ; 0 0"
    assert c.ask(f"frame {len(line)} {words(frame)}") == f"OK {line.hex()}"


# --- messages ---------------------------------------------------------------------------------------------


@given(message=messages)
def test_messages_are_encoded_alike_and_come_back(message: Message, c: Driver) -> None:
    type_, body = encode_message(message)
    said = c.ask_all(
        [
            f"encode {len(body)} {words(message)}",
            f"decode {type_} {body.hex()}",
            f"encode {len(body) - 1} {words(message)}",
        ]
    )
    assert said == [f"OK {type_} {body.hex()}", f"OK {words(message)}", "BAD_VALUE"]


def test_any_body_is_a_message_for_both_or_for_neither(c: Driver) -> None:
    generator = random.Random(3)
    types = [1, 2, 3, 4, 5, 0x20]
    seeds = [bytes.fromhex(example["plaintext"]) for example in SEALED]
    bodies = []
    for _ in range(5000):
        type_ = generator.choice([*types, generator.randrange(256)])
        drawn = bytearray(generator.choice(seeds))
        for _ in range(generator.randrange(3)):
            drawn[generator.randrange(len(drawn))] = generator.choice([0, 1, 2, 30, 31, 100, 101, 255])
        end = generator.choice([len(drawn), len(drawn), generator.randrange(len(drawn) + 1)])
        bodies.append((type_, bytes(drawn[:end])))
    for n in (0, 1, 30, 31, 255):
        head = bytes.fromhex("03000040000019000000881310") + bytes([1, n])
        bodies += [(2, head + bytes(length)) for length in (0, 6 * n, 6 * n + 1, 180, 186, 209)]
    answers = c.ask_all([f"decode {type_} {octets(body)}" for type_, body in bodies])
    taken = 0
    for (type_, body), answer in zip(bodies, answers, strict=True):
        try:
            expected = f"OK {words(decode_message(type_, body))}"
            taken += 1
        except WireError:
            expected = "MALFORMED"
        assert answer == expected, (type_, body)
    assert 300 < taken < 4000


@pytest.mark.parametrize(
    "wrong",
    [
        "256 1 010000 0 3 5000 32768 0",  # range 3 g
        "256 1 010000 0 16 0 32768 0",  # rate 0
        "256 1 010000 0 16 5000 0 0",  # tick rate 0
        "512 1 0 0 5000 16 1 0",  # no samples
        "512 1 0 0 5000 16 1 31 " + "0 " * 90,
        "512 1 0 0 5000 16 16 1 0 0 0",  # a reserved flag
        "768 101 4000 20 0 0",  # battery 101 %
        "768 100 4000 20 128 0",
        "8196 0 16",  # rate 0
        "8196 5000 1",
        "8192",  # no action
        "8198",
        "1536",
        "0",
        "-1",
    ],
)
def test_a_value_outside_its_table_is_never_sent(wrong: str, c: Driver) -> None:
    c.start()
    assert c.ask(f"encode 250 {wrong}") == "BAD_VALUE"
    assert c.ask(f"seal 30 {wrong}") == f"BAD_VALUE {bytes(30).hex()}"
    assert c.flash() == WearableCounters()  # and no counter is spent


# --- frames -----------------------------------------------------------------------------------------------


@given(frame=frames)
def test_frames_are_encoded_alike(frame: Frame, c: Driver) -> None:
    line = encode_frame(frame)
    said = c.ask_all([f"frame {len(line) - spare} {words(frame)}" for spare in (0, 1)])
    assert said == [f"OK {line.hex()}", "BAD_VALUE"]


@pytest.mark.parametrize("wrong", [f"16 -60 {bytes(n).hex()}" for n in (21, 247)] + ["32 -", "32 00", "3", "0"])
def test_what_no_reader_would_take_is_not_framed(wrong: str, c: Driver) -> None:
    assert c.ask(f"frame 300 {wrong}") == "BAD_VALUE"


def fed(c: Driver, *parts: bytes) -> tuple[list[str], list[str]]:
    """Return the frames a fresh reader finds, and its two counts after each part."""
    found, counts = [], []
    answers = c.ask_all(["line", *(f"feed {octets(part)}" for part in parts)])
    for answer in answers[1:]:
        ok, *some, count = answer.split(" ; ")
        assert ok == "OK"
        found += some
        counts.append(count)
    return found, counts


@given(line=lines, cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_any_split_gives_the_frames_and_counts_of_the_pis_reader(line: bytes, cuts: list[int], c: Driver) -> None:
    line += b"\0"
    edges = [0, *sorted(min(cut, len(line)) for cut in cuts), len(line)]
    parts = [line[a:b] for a, b in pairwise(edges)]
    reader = FrameDecoder()
    frames, counts = [], []
    for part in parts:
        frames += [words(frame) for frame in reader.feed(part)]
        counts.append(f"{reader.bad_frames} {reader.bad_bytes}")
    assert fed(c, *parts) == (frames, counts)


def test_mutated_lines_give_the_frames_and_counts_of_the_pis_reader(c: Driver) -> None:
    generator = random.Random(4)
    good = [bytes.fromhex(example["frame"]) for example in EXAMPLES]
    good.append(encode_frame(Uplink(-128, bytes(range(1, 247)))))  # 252 octets, the longest line
    good += [b"\1" * n + b"\0" for n in (3, 4, 250, 251, 252, 253)] + [
        b"\xff" * n + b"\0" for n in (250, 251, 252)
    ]
    line = bytearray()
    for _ in range(3000):
        run = bytearray(generator.choice(good))
        for _ in range(generator.choice([0, 0, 1, 2])):
            run[generator.randrange(len(run))] = generator.choice([0, 1, 255, generator.randrange(256)])
        line += run
    line += b"\0"
    reader = FrameDecoder()
    frames = [words(frame) for frame in reader.feed(bytes(line))]
    found, counts = fed(c, *(bytes(line[at : at + 1000]) for at in range(0, len(line), 1000)))
    assert found == frames
    assert counts[-1] == f"{reader.bad_frames} {reader.bad_bytes}"
    assert len(frames) > 500
    assert reader.bad_frames > 500


def test_a_body_of_any_length_makes_a_frame_for_both_or_for_neither(c: Driver) -> None:
    line = b""
    for kind in (0, 1, 2, 3, 0x10, 0x20, 0x21, 0xFF):
        for length in (*range(26), *range(240, 249)):
            data = bytes([kind, *[7] * length])
            line += cobs.encode(data + crc_hqx(data, 0xFFFF).to_bytes(2, "little")) + b"\0"
    reader = FrameDecoder()
    frames = [words(frame) for frame in reader.feed(line)]
    found, counts = fed(c, line)
    assert found == frames
    assert counts == [f"{reader.bad_frames} {reader.bad_bytes}"]
    assert len(frames) == 1 + 1 + 11 + 11 + 1  # of each kind its lengths


def test_an_endless_run_is_dropped_and_the_next_frame_is_taken(c: Driver) -> None:
    ask = encode_frame(DongleAsk())
    found, counts = fed(c, ask, *[b"\x55" * 4096] * 10, b"\0" + ask)
    assert found == [words(DongleAsk())] * 2
    assert counts[-1] == "1 40960"


# --- the cipher -------------------------------------------------------------------------------------------

AES_VECTORS = [  # FIPS 197, appendices B and C.1; SP 800-38A, F.1.1
    "2b7e151628aed2a6abf7158809cf4f3c 3243f6a8885a308d313198a2e0370734 3925841d02dc09fbdc118597196a0b32",
    "000102030405060708090a0b0c0d0e0f 00112233445566778899aabbccddeeff 69c4e0d86a7b0430d8cdb78070b4c55a",
    "2b7e151628aed2a6abf7158809cf4f3c 6bc1bee22e409f96e93d7e117393172a 3ad77bb40d7a3660a89ecaf32466ef97",
    "2b7e151628aed2a6abf7158809cf4f3c ae2d8a571e03ac9c9eb76fac45af8e51 f5d3d58503b9699de785895a96fdbaaf",
    "2b7e151628aed2a6abf7158809cf4f3c 30c81c46a35ce411e5fbc1191a0a52ef 43b1cd7f598ece23881b00e3ed030688",
    "2b7e151628aed2a6abf7158809cf4f3c f69f2445df4f9b17ad2b417be66c3710 7b0c785e27e8ad3f8223207104725dd4",
]
# RFC 3610, packet vectors 1 to 6, those with M = 8 and the key C0 to CF: the nonce's first seven octets, octets in
# clear, octets in all (00, 01, ...), the encrypted octets with their MIC.
CCM_VECTORS = [
    ("00000003020100", 8, 31, "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0"),
    ("00000004030201", 8, 32, "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916"),
    ("00000005040302", 8, 33, "51b1e5f44a197d1da46b0f8e2d282ae871e838bb64da8596574adaa76fbd9fb0c5"),
    ("00000006050403", 12, 31, "a28c6865939a9a79faaa5c4c2a9d4a91cdac8c96c861b9c9e61ef1"),
    ("00000007060504", 12, 32, "dcf1fb7b5d9e23fb9d4e131253658ad86ebdca3e51e83f077d9c2d93"),
    ("00000008070605", 12, 33, "6fc1b011f006568b5171a42d953d469b2570a4bd87405a0443ac91cb94"),
]


@pytest.mark.parametrize("vector", AES_VECTORS)
def test_aes_gives_the_standards_blocks(vector: str, c: Driver) -> None:
    key, block, encrypted = vector.split()
    assert c.ask(f"aes {key} {block}") == f"OK {encrypted}"


def test_aes_gives_the_blocks_of_another_implementation(c: Driver) -> None:
    generator = random.Random(5)
    pairs = [(generator.randbytes(16), generator.randbytes(16)) for _ in range(2000)]
    answers = c.ask_all([f"aes {key.hex()} {block.hex()}" for key, block in pairs])
    for (key, block), answer in zip(pairs, answers, strict=True):
        other = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        assert answer == f"OK {other.update(block).hex()}"


@pytest.mark.parametrize(("nonce", "clear_octets", "total", "sealed"), CCM_VECTORS)
def test_ccm_gives_the_rfcs_packets(nonce: str, clear_octets: int, total: int, sealed: str, c: Driver) -> None:
    packet, key = bytes(range(total)), bytes(range(0xC0, 0xD0))
    clear, text = packet[:clear_octets].hex(), packet[clear_octets:].hex()
    head = f"{key.hex()} {nonce}a0a1a2a3a4a5 {clear}"
    assert c.ask(f"ccm_seal {head} {text}") == f"OK {sealed[:-16]} {sealed[-16:]}"
    assert c.ask(f"ccm_open {head} {sealed[:-16]} {sealed[-16:]}") == f"OK {text} {sealed[-16:]}"
    wrong = f"{int(sealed[-16:], 16) ^ 1:016x}"
    assert c.ask(f"ccm_open {head} {sealed[:-16]} {wrong}") == f"FORGED {'00' * (total - clear_octets)} {wrong}"


@given(
    key=keys,
    nonce=st.binary(min_size=13, max_size=13),
    clear=st.binary(max_size=14),
    text=st.binary(max_size=300),
    at=st.integers(0, 10_000),
)
def test_ccm_seals_as_another_implementation_does(  # noqa: PLR0917 - Hypothesis names them
    key: bytes, nonce: bytes, clear: bytes, text: bytes, at: int, c: Driver
) -> None:
    sealed = AESCCM(key, tag_length=8).encrypt(nonce, text, clear)
    head = f"{key.hex()} {nonce.hex()} {octets(clear)}"
    body, mic = octets(sealed[:-8]), sealed[-8:].hex()
    flipped = bytearray(sealed)
    flipped[at % len(sealed)] ^= 1 << at % 8
    wrong, wrong_mic = octets(bytes(flipped[:-8])), flipped[-8:].hex()
    said = c.ask_all(
        [
            f"ccm_seal {head} {octets(text)}",
            f"ccm_open {head} {body} {mic}",
            f"ccm_open {head} {wrong} {wrong_mic}",
        ]
    )
    assert said == [
        f"OK {body} {mic}",
        f"OK {octets(text)} {mic}",
        f"FORGED {octets(bytes(len(text)))} {wrong_mic}",
    ]


def test_ccm_takes_what_its_lengths_can_say_and_no_octet_more(c: Driver) -> None:
    text, head = random.Random(6).randbytes(65535), f"{KEY.hex()} {bytes(13).hex()}"
    sealed = AESCCM(KEY, tag_length=8).encrypt(bytes(13), text, bytes(14)).hex()
    assert c.ask(f"ccm_seal {head} {bytes(14).hex()} {text.hex()}") == f"OK {sealed[:-16]} {sealed[-16:]}"
    for clear, octets_in in ((14, 65536), (15, 1)):
        request = f"{head} {bytes(clear).hex()} {bytes(octets_in).hex()}"
        assert c.ask(f"ccm_seal {request}") == "BAD_VALUE"
        assert c.ask(f"ccm_open {request} {bytes(8).hex()}") == "BAD_VALUE"


# --- sessions ---------------------------------------------------------------------------------------------


@given(message=uplinks, counter=counters, wearable=ids, key=keys)
def test_the_pi_opens_what_c_seals(
    message: UplinkMessage, counter: int, wearable: str, key: bytes, c: Driver
) -> None:
    packet_octets = 22 + len(encode_message(message)[1])
    started, too_small, said = c.ask_all(
        [
            f"start {wearable} {key.hex()} {counter - 1} 0 0",
            f"seal {packet_octets - 1} {words(message)}",
            f"seal {packet_octets} {words(message)}",
        ]
    )
    assert (started, too_small) == ("OK", f"BAD_VALUE {octets(bytes(packet_octets - 1))}")
    assert opened(said, pi(wearable=wearable, key=key)) == message
    header = read_header(bytes.fromhex(said.split()[1]))
    assert (header.wearable, header.counter) == (wearable, counter)


@given(command=commands, counter=counters, wearable=ids, key=keys)
def test_c_opens_what_the_pi_seals_once(
    command: Command, counter: int, wearable: str, key: bytes, c: Driver
) -> None:
    hear = f"open {pi(Counters(downlink=counter - 1), wearable, key).seal(command).hex()}"
    start = f"start {wearable} {key.hex()} 0 {counter - 1} 7"
    said = c.ask_all([start, hear, "flash", hear, "restart", hear])
    assert said == ["OK", f"OK {words(command)}", f"OK 0 {counter} 8", "STALE", "OK", "STALE"]


@pytest.mark.parametrize(
    "wearable", ["", "123456789", "a_b", "a.b", "caf\N{DEGREE SIGN}", "[", "@", "`", "{", "/", ":"]
)
def test_an_id_no_wearable_has_starts_no_session(wearable: str, c: Driver) -> None:
    raw = wearable.encode("utf-8")[:15]
    if raw and raw.isascii():
        assert c.ask(f"start {raw.decode()} {KEY.hex()} 0 0 0") == "BAD_VALUE"
    padded = raw[:8].ljust(8, b"\0")
    packet = b"\1\1" + (padded if len(raw) <= 8 else b"1234567\1") + bytes(12)
    assert c.ask(f"header {packet.hex()}") == "MALFORMED"
    with pytest.raises(WireError):
        read_header(packet)


def test_any_octets_have_a_header_for_both_or_for_neither(c: Driver) -> None:
    generator = random.Random(10)
    packets = []
    for _ in range(3000):
        wearable = bytes(generator.choice(b"\0\0\0aZ09-_@[`{/:\xff") for _ in range(8))
        if generator.random() < 0.5:
            wearable = generator.choice([b"0042", b"Az-09zZa", b"-"]).ljust(8, b"\0")
        octets_in = generator.choice([21, 22, 31, 246, 247])
        head = bytes([generator.choice([1, 1, 1, 0, 2]), generator.randrange(256)]) + wearable
        packets.append(head + generator.randbytes(octets_in - len(head)))
    answers = c.ask_all([f"header {octets(packet)}" for packet in packets])
    for packet, answer in zip(packets, answers, strict=True):
        try:
            header = read_header(packet)
            expected = f"OK {header.type} {header.wearable} {header.counter}"
        except WireError:
            expected = "MALFORMED"
        assert answer == expected, packet
    assert len(set(answers)) > 300


def test_a_changed_short_long_or_foreign_packet_is_never_taken_and_costs_nothing(c: Driver) -> None:
    generator = random.Random(7)
    packet = pi().seal(Prove(bytes(8)))
    tried = [
        packet[: bit // 8] + bytes([packet[bit // 8] ^ 1 << bit % 8]) + packet[bit // 8 + 1 :]
        for bit in range(248)
    ]
    tried += [packet[:n] for n in range(len(packet))] + [packet + bytes(n) for n in (1, 8, 215, 216, 1000)]
    tried += [packet[:14] + generator.randbytes(generator.randrange(8, 233)) for _ in range(2000)]
    tried += [generator.randbytes(generator.randrange(300)) for _ in range(2000)]
    tried += [pi(key=bytes(16)).seal(Identify()), pi(wearable="0043").seal(Identify())]
    tried.append(WearableSession("0042", KEY, WearableCounters(), save=lambda _: None).seal(STATUS))
    c.start()
    answers = c.ask_all([f"open {octets(some)}" for some in tried])
    assert set(answers) == {"FORGED", "NOT_OURS", "MALFORMED"}
    assert c.flash() == WearableCounters()
    assert c.ask(f"open {packet.hex()}") == f"OK {words(Prove(bytes(8)))}"


def test_an_authentic_packet_that_is_no_command_is_taken_once_and_not_obeyed(c: Driver) -> None:
    c.start()
    for counter, (type_, body) in enumerate(
        [encode_message(STATUS), (0x20, b"\x06"), (0x20, b""), (0x20, bytes(224))], 1
    ):
        header = wire.HEADER.pack(1, type_, b"0042\0\0\0\0", counter)
        packet = header + AESCCM(KEY, tag_length=8).encrypt(b"\2" + header[2:], body, header)
        assert c.ask(f"open {packet.hex()}") == "MALFORMED"
        assert c.flash().command == counter


def test_a_wearable_does_not_command(c: Driver) -> None:
    c.start()
    assert c.seal(Identify(5)).startswith("BAD_VALUE")
    assert c.flash() == WearableCounters()


def test_used_up_counters_refuse_to_seal_and_to_obey(c: Driver) -> None:
    c.start(WearableCounters(MAX_COUNTER - 3, MAX_COUNTER - 1))
    packets = [c.seal(STATUS).split() for _ in range(3)]
    assert [read_header(bytes.fromhex(packet)).counter for _, packet in packets] == [
        MAX_COUNTER - 2,
        MAX_COUNTER - 1,
        MAX_COUNTER,
    ]
    assert c.flash().uplink == MAX_COUNTER
    last = pi(Counters(downlink=MAX_COUNTER - 1)).seal(Identify(5))
    assert c.ask(f"open {last.hex()}") == f"OK {words(Identify(5))}"
    for _ in range(2):
        assert c.seal(STATUS) == f"USED_UP {bytes(246).hex()}"
        assert c.ask(f"open {last.hex()}") == "STALE"
        assert c.ask("restart") == "OK"


def test_a_flash_that_stores_nothing_seals_and_obeys_nothing(c: Driver) -> None:
    c.start()
    packet = pi().seal(Identify(5))
    assert c.ask("full 2") == "OK"
    assert c.seal(STATUS) == f"NOT_STORED {bytes(246).hex()}"
    assert c.ask(f"open {packet.hex()}") == "NOT_STORED"
    assert opened(c.seal(STATUS), pi()) == STATUS  # it stores again
    assert c.ask(f"open {packet.hex()}") == f"OK {words(Identify(5))}"


@pytest.mark.parametrize("block", range(1, 6))
def test_a_cipher_that_fails_gives_nothing_away_and_uses_no_counter_twice(block: int, c: Driver) -> None:
    c.start()
    assert c.ask(f"broken {block}") == "OK"
    assert c.seal(STATUS) == f"CIPHER_FAILED {bytes(246).hex()}"
    _, packet = c.seal(STATUS).split()
    assert read_header(bytes.fromhex(packet)).counter == 2
    command = pi().seal(Identify(5))
    assert c.ask(f"broken {block}") == "OK"
    assert c.ask(f"open {command.hex()}") == "CIPHER_FAILED"
    assert c.ask(f"open {command.hex()}") == f"OK {words(Identify(5))}"


def test_at_a_power_cut_a_command_is_obeyed_later_or_never_but_not_twice(c: Driver) -> None:
    packet = pi().seal(Identify(5)).hex()
    for when, then in (("before", f"OK {words(Identify(5))}"), ("after", "STALE")):
        c.start()
        assert c.ask_all([f"cut 1 {when}", f"open {packet}", f"open {packet}"]) == ["OK", "CUT", then]


# --- histories of power cuts ------------------------------------------------------------------------------

SEAL = f"seal 31 {words(STATUS)}"
COMMANDS = [pi(Counters(downlink=counter)).seal(Identify(5)).hex() for counter in range(30)]


def history(generator: random.Random) -> list[str]:
    """Return requests to one wearable: it seals, obeys, loses its power at saves and between them."""
    start = generator.choice([0, 0, 5, 1000, MAX_COUNTER - generator.randrange(150)])
    requests = [f"start 0042 {KEY.hex()} {start} 0 {generator.choice([0, 65534, 65535])}"]
    for _ in range(generator.randrange(4, 12)):
        match generator.randrange(8):
            case 0:
                requests.append("restart")
            case 1 | 2:
                requests.append(f"cut {generator.choice([1, 1, 2, 3])} {generator.choice(['before', 'after'])}")
            case 3:
                requests.append(f"full {generator.choice([1, 2])}")
            case 4 | 5:
                requests.append(f"open {generator.choice(COMMANDS)}")
            case _:
                n = generator.choice([1, 1, 1, 1, 2, 2, 3, 5, 5, 66])
                requests.append(SEAL if n == 1 else f"seals {n} {words(STATUS)}")
    return [*requests, SEAL, "flash"]


def lived(requests: list[str]) -> list[str]:
    """Return the answers of a `WearableSession` to the same requests."""

    class Cut(Exception):
        """The power went."""

    class Full(Exception):
        """The flash did not store."""

    flash = WearableCounters()
    to_cut = to_fail = 0
    stored_first = False

    def save(counters: WearableCounters) -> None:
        nonlocal flash, to_cut, to_fail
        if to_fail:
            to_fail -= 1
            raise Full
        cut = to_cut == 1
        to_cut = max(0, to_cut - 1)
        if not cut or stored_first:
            flash = counters
        if cut:
            raise Cut

    answers = []
    for request in requests:
        match request.split():
            case ["start", wearable, key, *stored]:
                flash = WearableCounters(*map(int, stored))
                to_cut = to_fail = 0
                session = WearableSession(wearable, bytes.fromhex(key), flash, save=save)
                answers.append("OK")
            case ["restart"]:
                session = WearableSession(wearable, bytes.fromhex(key), flash, save=save)
                answers.append("OK")
            case ["cut", saves, when]:
                to_cut, stored_first = int(saves), when == "after"
                answers.append("OK")
            case ["full", saves]:
                to_fail = int(saves)
                answers.append("OK")
            case ["flash"]:
                answers.append(f"OK {flash.uplink} {flash.command} {flash.boot}")
            case [what, *rest]:
                said = ["OK"] if what == "seals" else []
                nothing = [bytes(31).hex()] if what == "seal" else []
                try:
                    if what == "seal":
                        said += ["OK", session.seal(STATUS).hex()]
                    elif what == "seals":
                        for _ in range(int(rest[0])):
                            said.append(str(read_header(session.seal(STATUS)).counter))
                    else:
                        command = session.open(bytes.fromhex(rest[0]))
                        said.append(f"OK {words(command)}" if command else "STALE")
                except SealRefused:
                    said += ["USED_UP", *nothing]
                except Full:
                    said += ["NOT_STORED", *nothing]
                except Cut:
                    said.append("CUT")
                    session = WearableSession(wearable, bytes.fromhex(key), flash, save=save)
                answers.append(" ".join(said))
    return answers


def test_any_history_of_power_cuts_goes_in_c_as_in_python(c: Driver) -> None:
    generator = random.Random(8)
    seen: set[str] = set()
    for _ in range(500):
        requests = history(generator)
        expected = lived(requests)
        assert c.ask_all(requests) == expected
        seen |= {answer.split()[i] for answer in expected for i in (0, -1)}
    assert seen > {"OK", "CUT", "STALE", "NOT_STORED", "USED_UP"}


def test_no_history_of_power_cuts_uses_a_nonce_or_a_command_twice(c: Driver) -> None:
    generator = random.Random(9)
    lives = [history(generator) for _ in range(10_000)]
    answers = iter(c.ask_all([request for requests in lives for request in requests]))
    cuts = sealed = 0
    for requests in lives:
        used: list[int] = []
        obeyed: list[str] = []
        for request in requests:
            answer = next(answers)
            what, said = request.split()[0], answer.split()
            cuts += said[-1] == "CUT"
            if what == "seals":
                used += [int(counter) for counter in said if counter.isdigit()]
            elif what == "seal" and said[0] == "OK":
                used.append(read_header(bytes.fromhex(said[1])).counter)
            elif what == "open" and said[0] == "OK":
                obeyed.append(request)
        assert len(used) == len(set(used))
        assert len(obeyed) == len(set(obeyed))
        sealed += len(used)
    assert cuts > 3000
    assert sealed > 50_000


# --- what firmware asks of a library ----------------------------------------------------------------------


def test_the_library_allocates_nothing_keeps_nothing_and_asks_for_three_functions(tmp_path: Path) -> None:
    assert CC is not None
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm is installed")
    sources = sorted(SOURCES.glob("*.c"))
    plain = ["-Os", "-fno-stack-protector", "-fno-pie", "-U_FORTIFY_SOURCE"]
    subprocess.run([CC, *STRICT, *plain, "-c", *sources], check=True, timeout=100, cwd=tmp_path)
    objects = [tmp_path / source.with_suffix(".o").name for source in sources]
    listed = subprocess.run([nm, *objects], check=True, timeout=10, capture_output=True, text=True).stdout
    symbols = [line.split()[-2:] for line in listed.splitlines() if line and not line.endswith(":")]
    kinds = {kind for kind, _ in symbols}
    assert kinds <= {"T", "t", "r", "U"}  # code, constants, names from elsewhere: no B, b, D, d to be written
    assert all(symbol.startswith("fallwatch_") for kind, symbol in symbols if kind == "T")
    asked = {symbol for kind, symbol in symbols if kind == "U" and not symbol.startswith("fallwatch_")}
    assert asked <= {"memcpy", "memset", "memcmp"}


@pytest.mark.parametrize("place", [0, 1], ids=["wearable", "dongle"])
def test_the_code_on_the_readme_compiles(place: int, tmp_path: Path) -> None:
    assert CC is not None
    blocks = re.findall(r"```c\n(.*?)```", (SOURCES / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "readme.c").write_text(blocks[place], encoding="utf-8")
    subprocess.run([CC, *STRICT, "-c", "readme.c"], check=True, timeout=60, cwd=tmp_path)


def test_every_message_and_frame_has_its_number_here() -> None:
    assert set(KINDS) == {*wire.Message.__args__, *wire.Frame.__args__}
    assert {Hello, Samples, Status, Button, Proof} == set(UplinkMessage.__args__)
