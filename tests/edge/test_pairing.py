"""Pairing cannot go wrong: who wears what, whose key is where, and what of it is shown to whom."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import segno

from edge.cli.pairing import pairing_text
from edge.settings import load_settings
from tests.edge.in_process import run_here

SETTINGS = """\
[home]
id = "site-7"

# Do not mix these two up!
[[resident]]
id = "r12"
room = "12"
wearable = "0042"

[[resident]]
id = "r13"
room = "13"
"""

Pair = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fallwatch.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def fallwatch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> Pair:
    monkeypatch.setenv("FALLWATCH_CONFIG", str(config))
    monkeypatch.setenv("FALLWATCH_STATE", str(tmp_path / "state"))
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


def key_of(config: Path, wearable: str) -> Path:
    return config.parent / "secrets" / "wearables" / f"{wearable}.key"


def test_the_qr_code_holds_the_key_and_is_shown_when_asked_for_alone(fallwatch: Pair, config: Path) -> None:
    _, said, _ = fallwatch("pair", "0042")
    assert "▀" not in said
    status, said, _ = fallwatch("pair", "0042", "--qr")
    key = bytes.fromhex(key_of(config, "0042").read_text())
    assert status == 0
    assert "Let nobody photograph it" in said
    rows = [line for line in said.splitlines() if set(line.strip()) <= set("▀▄█ ") and line.strip()]
    wanted = segno.make(pairing_text("0042", key), error="m")
    assert len(rows) >= (wanted.symbol_size(border=0)[1] + 1) // 2
    assert key.hex() not in said.lower()
    assert pairing_text("0042", key) == f"FALLWATCH:1:0042:{key.hex().upper()}"


def test_a_spare_is_noted_beside_the_first_and_takes_its_place_when_that_goes(
    fallwatch: Pair, config: Path
) -> None:
    assert fallwatch("pair", "0077", "--resident", "r12", "--spare")[0] == 0
    assert load_settings(config).resident[0].wearables == ("0042", "0077")
    fallwatch("pair", "0077", "--resident", "r12")  # a new key changes nobody's place
    assert load_settings(config).resident[0].wearables == ("0042", "0077")
    fallwatch("unpair", "0042")
    assert load_settings(config).resident[0].wearables == ("0077",)
    assert not key_of(config, "0042").exists()
    assert "# Do not mix these two up!" in config.read_text()


def test_a_wearable_has_one_wearer_and_whose_it_was_is_said(fallwatch: Pair, config: Path) -> None:
    _, said, _ = fallwatch("pair", "0042", "--resident", "r13")
    assert "taken from resident r12, room 12" in said
    assert [r.wearables for r in load_settings(config).resident] == [(), ("0042",)]


def test_a_bought_wearable_is_described_and_has_no_key(fallwatch: Pair, config: Path) -> None:
    at = ("--kind", "polar", "--address", "A0:9E:1A:00:00:42")
    status, said, _ = fallwatch("pair", "0043", "--resident", "r13", *at)
    assert status == 0
    assert "seals nothing" in said
    settings = load_settings(config)
    assert (settings.wearable_kind("0043"), settings.link_of("0043")) == ("polar", "ble")
    assert not key_of(config, "0043").exists()
    fallwatch("pair", "0043", "--kind", "bangle", "--address", "A0:9E:1A:00:00:43")
    assert [w.kind for w in load_settings(config).wearable] == ["bangle"]
    assert key_of(config, "0043").exists()  # a watch with our app seals


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--kind", "polar"), "address"),
        (("--kind", "polar", "--address", "a0-9e"), "address"),
        (("--kind", "shimmer"), "port"),
        (("--kind", "toaster"), "kind"),
    ],
)
def test_a_wrong_description_is_refused_by_key_and_nothing_is_described(
    fallwatch: Pair, config: Path, arguments: tuple[str, ...], says: str
) -> None:
    status, _, error = fallwatch("pair", "0042", *arguments)
    assert status == 2
    assert f"wearable.{says}" in error
    assert config.read_text() == SETTINGS
    assert not key_of(config, "0042").exists()


def test_the_key_that_came_with_a_wearable_is_taken_from_a_file(
    fallwatch: Pair, config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "key.txt"
    file.write_text("00112233445566778899aabbccddeeff\n")
    assert fallwatch("pair", "0042", "--key-file", file)[0] == 0
    assert key_of(config, "0042").read_text() == file.read_text()
    file.write_text("no key")
    status, _, error = fallwatch("pair", "0042", "--key-file", file)
    assert status == 2
    assert "holds no key" in error


def test_a_spare_without_a_resident_is_refused(fallwatch: Pair) -> None:
    status, _, error = fallwatch("pair", "0077", "--spare")
    assert status == 2
    assert "--resident" in error


def test_the_commands_of_the_wearables_page_do_what_it_says(fallwatch: Pair, config: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "wearables.md").read_text(encoding="utf-8")
    block = page.partition("```sh\n")[2].partition("```")[0]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        assert command[:2] == ["sudo", "fallwatch"]
        status, _, error = fallwatch(*command[2:])
        assert (status, error) == (0, ""), command
    assert [r.wearables for r in load_settings(config).resident] == [("0077",), ("0043",)]
    assert not key_of(config, "0042").exists()
