"""Broker and record gone, silent, or coming and going: local pages never wait, nothing is missing afterwards."""

from __future__ import annotations

import gc
import json
import queue
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from edge.core.incident import Outcome, State
from edge.settings import MqttSettings, RecordSettings
from tests.edge.brokers import MOSQUITTO, Broker, Listener, amqtt, free_port, mosquitto
from tests.edge.home import Home, Pager, until
from tests.edge.record_peers import Peer
from tests.faults.counts import SEED, count, only_in_full, tell
from tests.faults.proxy import Proxy
from tests.faults.test_power_cut import a_fall
from tests.faults.test_schedules import HOME
from tests.faults.virtual import VirtualHome, virtual_home

CALLS = '[escalation]\ngroups = ["1"]\nsteps_s = [600]\nrepeat_every_s = 60\n'
KEEPALIVE_S = count(3, 20)  # 20 is what homes have
TROUBLE_S = count(3, 60)
PAGE_S = 2.0
ORDER = [*State]
INCIDENTS = "fallwatch/site-7/incident/+"

pytestmark = pytest.mark.timeout(count(120, 1200))


@dataclass
class Far:
    """A broker and a record server, each behind a proxy, and somebody who listens at the broker."""

    broker: Broker
    server: Peer
    proxies: tuple[Proxy, Proxy]
    listener: Listener

    def trouble(self, kind: str) -> None:
        for proxy in self.proxies:
            if kind == "flapping":
                proxy.flap(1.0)
            else:
                proxy.be(kind)  # type: ignore[arg-type]  # the others are its modes

    def settings(self) -> tuple[MqttSettings, RecordSettings]:
        mqtt = MqttSettings(host="127.0.0.1", port=self.proxies[0].port, keepalive_s=KEEPALIVE_S)
        url = f"http://127.0.0.1:{self.proxies[1].port}/fhir"
        return mqtt, RecordSettings(kind="fhir-r4", base_url=url, auth="bearer", token_file="token", timeout_s=3.0)

    def told(self, wanted: set[str], timeout_s: float) -> dict[str, list[State]]:
        """Return the states of each incident as the broker's other clients heard them, once all are over."""
        states: dict[str, list[State]] = defaultdict(list)
        cleared: set[str] = set()

        def all_over() -> bool:
            with suppress(queue.Empty):
                while True:
                    heard = self.listener.hear(0.2)
                    incident = heard.topic.rpartition("/")[2]
                    if heard.payload:
                        states[incident].append(State(json.loads(heard.payload)["state"]))
                    else:
                        cleared.add(incident)
            return wanted <= cleared

        until(all_over, timeout_s, hint="all incidents told and cleared at the broker")
        return states

    def recorded(self) -> Counter[str]:
        """Return how often each incident stands in the record server."""
        found: Counter[str] = Counter()
        for observation in self.server.all("Observation"):
            found[observation["identifier"][0]["value"].rpartition("/")[2]] += 1
        return found


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    for name in ("broker", "server", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "secrets" / "token").write_text("edge-token\n")
    server = Peer(tmp_path / "server", free_port(), [])
    server.start()
    with (
        mosquitto(tmp_path / "broker") if MOSQUITTO else amqtt() as broker,
        Proxy(broker.port) as first,
        Proxy(server.port) as second,
        Listener(broker.port, INCIDENTS) as listener,
    ):
        yield Far(broker, server, (first, second), listener)
    server.kill()


def check(far: Far, incidents: set[str], caught_up: Callable[[], bool], *, timeout_s: float) -> Counter[str]:
    """Wait until all is told; return what of it was not told in order at the broker, or not once to the record."""
    states = far.told(incidents, timeout_s)
    until(caught_up, timeout_s, hint="the record has caught up")
    recorded = far.recorded()
    return Counter(
        untold=sum(states[incident][-1:] != [State.RESOLVED] for incident in incidents),
        out_of_order=sum(in_order(told) != sorted(in_order(told), key=ORDER.index) for told in states.values()),
        lost_from_record=sum(recorded[incident] == 0 for incident in incidents),
        twice_in_record=sum(recorded[incident] > 1 for incident in incidents),
    )


def in_order(told: list[State]) -> list[State]:
    """Return the states without repetitions: what the broker did not confirm is said again, oldest first."""
    return list(dict.fromkeys(told))


def tables(far: Far) -> str:
    """Return the settings of broker and record as a home has them in its file."""
    mqtt, record = far.settings()
    lines = ["[mqtt]", *(f"{key} = {json.dumps(getattr(mqtt, key))}" for key in ("host", "port", "keepalive_s"))]
    keys = ("kind", "base_url", "auth", "token_file", "timeout_s")
    lines += ["[record]", *(f"{key} = {json.dumps(getattr(record, key))}" for key in keys)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "kind", [pytest.param("gone", marks=only_in_full), "mute", pytest.param("flapping", marks=only_in_full)]
)
def test_while_broker_and_record_are_in_trouble_pages_go_out_and_nothing_is_missing_afterwards(
    tmp_path: Path, far: Far, kind: str
) -> None:
    with Home(tmp_path, calls=CALLS, more=tables(far)) as home, Pager(home.pager_link) as pager:
        home.start("detect").ready()
        home.start("alarm").ready()
        until(lambda: (home.told("alarm") or {}).get("mqtt", {}).get("well"), hint="broker connected")
        incidents: dict[str, float] = {}  # when committed
        late_s: list[float] = []

        def fall(number: int) -> None:
            facts = replace(a_fall(), room=f"W{number}")
            with home.journal() as journal:
                journal.raise_incident(facts, since_impact_s=0.0)
                committed_s = time.monotonic()
                page = pager.wait(f"FALL? RM W{number}", timeout_s=20)
                late_s.append(page.at_s - committed_s)
                journal.acknowledge(facts.incident, "anna")
                journal.resolve(facts.incident, Outcome.FALL, "anna")
            incidents[facts.incident] = committed_s

        fall(0)
        begun_s = time.monotonic()
        far.trouble(kind)
        noticed_s = None
        number = 1
        while time.monotonic() - begun_s < TROUBLE_S or (kind == "mute" and noticed_s is None):
            fall(number)
            number += 1
            if noticed_s is None and not home.told("alarm")["mqtt"]["well"]:  # type: ignore[index]  # it speaks
                noticed_s = time.monotonic() - begun_s
            assert time.monotonic() - begun_s < TROUBLE_S + 60
            time.sleep(0.5)
        far.trouble("well")

        def caught_up() -> bool:
            with home.journal() as journal:
                return not journal.waiting("record") and far.recorded().keys() >= incidents.keys()

        wrong = check(far, {*incidents}, caught_up, timeout_s=90)
        tell(
            f"8, 9 broker and record {kind}", seconds=TROUBLE_S, incidents=len(incidents),
            page_s=max(late_s), noticed_s=noticed_s or 0.0, **wrong,
        )  # fmt: skip
        assert max(late_s) <= PAGE_S
        assert not any(wrong.values()), wrong
        if kind == "mute":
            assert noticed_s is not None
            assert noticed_s <= 1.5 * KEEPALIVE_S + 2.0


def test_a_day_without_broker_and_record_is_made_up_for(
    tmp_path: Path, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Virtual time for the alarm service, a real broker and a real record server: both are away all day."""
    monkeypatch.setattr("edge.sinks.mqtt._RECONNECT_S", (1, 2))  # up to 30 s in a home, and that in real time
    incidents, rng = count(10, 1000), random.Random(SEED)
    mqtt, record = far.settings()
    settings = replace(HOME, mqtt=mqtt, record=record, path=tmp_path / "fallwatch.toml")
    far.trouble("gone")
    with virtual_home(settings, tmp_path / "state", rng) as home:
        for _ in range(incidents):
            home.at(rng.uniform(1.0, 86_000.0), partial(one_incident, home, rng))
        size_kib = rss_kib()
        home.run(86_400.0)
        grown_mib = (rss_kib() - size_kib) / 1024
        late_s = max(home.first_page_s(incident) - at_s for incident, at_s in home.raised_s.items())
        down_s = [sent.at_s for sent in home.far.sent if "BROKER DOWN" in sent.page.text]

        far.trouble("well")
        begun_s = time.monotonic()
        home.run(home.now_s + 120.0)  # the record is asked once a minute by now
        home.real_time = True

        def caught_up() -> bool:
            return not home.journal.waiting("record") and far.recorded().keys() >= home.raised_s.keys()

        home.run_until(lambda: caught_up() and home.journal.cursor("mqtt") >= home.journal.last_seq() - 1, 900.0)
        took_s = time.monotonic() - begun_s
        wrong = check(far, {*home.raised_s}, caught_up, timeout_s=60)
    tell(
        "8 both away for 24 h (virtual)", incidents=incidents, page_s=late_s, told_staff=bool(down_s),
        rss_grown_mib=grown_mib, caught_up_in_s=took_s, **wrong,
    )  # fmt: skip
    assert late_s <= PAGE_S
    assert down_s
    assert not any(wrong.values()), wrong
    assert grown_mib < 20.0


def one_incident(home: VirtualHome, rng: random.Random) -> None:
    """Somebody falls; sooner or later somebody else answers and closes."""
    incident, now_s = home.fall(resident=rng.choice(["r1", "r2"])), home.now_s
    home.at(now_s + rng.uniform(10.0, 300.0), lambda: home.journal.acknowledge(incident, "anna"))
    home.at(now_s + rng.uniform(310.0, 390.0), lambda: home.journal.resolve(incident, Outcome.FALL, "anna"))


def rss_kib() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])
