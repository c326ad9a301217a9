"""The comparison for people: counted by hand, nothing from outside, readable without its pictures."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib", reason="the training extra is not installed")
pytest.importorskip("torch", reason="the training extra is not installed")

from rich.console import Console

from models.card import Card
from models.preprocess import Accel
from training import bundle, evaluate, report
from training.evaluate import UNSEEN, Fall, Run, Scored, Stream, Tally, with_threshold
from training.windows import Shape

DRAFT = bundle.draft_card("waist", Shape(hop_samples=16), 0.5)
CARD: Card = replace(DRAFT, decision=replace(DRAFT.decision, confirm_windows=2))
HIGH, LOW = 0.95, 0.01


def scored(
    *,
    person: str = "set/01",
    activity: str = "walk",
    impact_s: float | None = None,
    alarm_s: float | None = None,
    seconds: float = 12.0,
    single: bool = True,
    age_group: str = "young",
    peak_g: float = 4.0,
) -> Scored:
    """A person at rest, but for one shock at the impact; scores are high for a second from the alarm on."""
    t_s = np.arange(round(seconds * 50)) / 50
    accel_g: Accel = np.tile(np.array([0, 1, 0], np.float32), (len(t_s), 1))
    if impact_s is not None:
        accel_g[round(impact_s * 50)] = [0, peak_g, 0]
    falls = () if impact_s is None else (Fall(max(impact_s - 2.0, 0.0), impact_s),)
    activities = ((0.0, activity),)
    daily_s = 0.0 if impact_s is not None and single else seconds
    stream = Stream(person.partition("/")[0], person, age_group, [(t_s, accel_g)], falls, activities, daily_s)
    return Scored(stream, single, said(len(evaluate.windows_of(stream, CARD)), alarm_s))


def said(count: int, alarm_s: float | None) -> list[float]:
    ends_s = np.arange(1, count + 1) / 2
    return [HIGH if alarm_s is not None and alarm_s <= end < alarm_s + 1.0 else LOW for end in ends_s]


def people(found: int, alarming: int, dataset: str = "set") -> list[Scored]:
    """Four people with five falls and ten daily trials each, and one stream of 360 s each with one false alarm."""
    ones = []
    for p in range(4):
        person = f"{dataset}/{p + 1:02}"
        for i in range(5):
            n = p * 5 + i
            ones.append(
                scored(
                    person=person,
                    activity="back <fall>",
                    impact_s=5.0,
                    alarm_s=6.0 if n < found else None,
                    peak_g=2.0 if i == 0 else 5.0,
                )
            )
        for i in range(10):
            n = p * 10 + i
            activity = "wave" if i < 5 else "walk"
            ones.append(scored(person=person, activity=activity, alarm_s=4.0 if n < alarming else None))
        ones.append(scored(person=person, seconds=360.0, alarm_s=100.0, single=False, age_group="old"))
    return ones


def run_of(ones: list[Scored], method: str = "network", split: str = UNSEEN, seed: int = 1) -> Run:
    return Run(method, split, seed, ones, dict.fromkeys({one.stream.person for one in ones}, 0.5))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """A network that gets better with its seed, a worse method, and a set left out."""
    return [
        run_of(people(15, 2), seed=1),
        run_of(people(17, 4), seed=2),
        run_of(people(10, 6), "impact threshold"),
        run_of(people(12, 3, "other"), split="without other"),
    ]


@pytest.fixture(scope="module")
def written(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    report.write(runs, folder, CARD)
    return folder


@pytest.fixture(scope="module")
def facts(written: Path) -> report.Facts:
    found: report.Facts = json.loads((written / "report.json").read_text(encoding="utf-8"))
    return found


def row(facts: report.Facts, of: str, **wanted: str) -> report.Facts:
    (found,) = [r for r in facts[of] if all(r[k] == v for k, v in ({"split": UNSEEN} | wanted).items())]
    return dict(found)


def test_the_figures_are_as_counted_by_hand(facts: report.Facts) -> None:
    found = row(facts, "headline", method="network", set="set")
    assert found["seeds"] == [1, 2]
    assert found["falls"] == {
        "n": 16.0, "of": 20, "by_seed": [15, 17], "share": 0.8, "low": 0.584, "high": 0.9193,
    }  # fmt: skip
    assert (found["daily"]["n"], found["daily"]["of"], found["daily"]["by_seed"]) == (3.0, 40, [2, 4])
    # Four streams of 360 s with an alarm each: 4 in 0.4 hours.
    streams = found["streams"]
    assert (streams["hours"], streams["false_alarms"], streams["per_hour"]) == (0.4, 4.0, 10.0)
    assert streams["per_hour_at_most_95"] == pytest.approx(9.15 / 0.4, abs=0.02)
    assert "delay_s" not in found  # no stream holds a fall


def test_delays_come_from_the_falls_of_streams() -> None:
    ones = [scored(impact_s=20.0, alarm_s=a, seconds=60.0, single=False) for a in (20.5, 21.0, 24.0)]
    (found,) = report.rows(evaluate.judge([run_of(ones)], CARD), ("set",), lambda one: [(one.stream.dataset,)])
    assert found["delay_s"] == {"p50": 1.5, "p95": 4.2}  # the second high window raises
    assert (found["falls_in_streams"]["n"], found["falls_in_streams"]["of"]) == (3.0, 3)


def test_figures_are_split_by_activity_person_age_and_hardness(facts: report.Facts) -> None:
    assert row(facts, "by_activity", method="network", activity="wave")["daily"]["by_seed"] == [2, 4]
    assert row(facts, "by_activity", method="network", activity="walk")["daily"]["by_seed"] == [0, 0]
    last = row(facts, "by_person", method="network", person="set/04")
    assert (last["falls"]["by_seed"], last["falls"]["of"]) == ([0, 2], 5)
    assert row(facts, "by_age_group", method="network", age_group="old")["streams"]["false_alarms"] == 4.0
    assert "falls" not in row(facts, "by_age_group", method="network", age_group="old")
    soft = row(facts, "hard_falls", method="network", kind="peak below 3 g")
    assert (soft["falls"]["by_seed"], soft["falls"]["of"]) == ([3, 4], 4)
    assert row(facts, "hard_falls", method="network", kind="peak of 3 g and more")["falls"]["of"] == 16


def test_falls_from_sitting_are_told_by_the_codes_of_sisfall() -> None:
    sitting = scored(person="sisfall/SA01", activity="F14", impact_s=5.0, peak_g=2.5)
    kinds = [kind for _, kind in report.kinds_of_fall(sitting)]
    assert kinds == ["fainting or asleep while sitting (F13 to F15)", "peak below 3 g"]
    assert report.kinds_of_fall(scored(activity="D11")) == []


def test_the_json_has_its_schema_and_every_method_and_split(facts: report.Facts) -> None:
    assert list(facts) == [
        "schema", "placement", "decision", "methods", "splits", "headline", "curves", "by_activity", "hard_falls",
        "by_person", "by_age_group", "waiting", "limits",
    ]  # fmt: skip
    assert (facts["schema"], facts["placement"]) == (1, "waist")
    assert (facts["methods"], facts["splits"]) == (["network", "impact threshold"], [UNSEEN, "without other"])
    shares = [r[k] for r in facts["headline"] for k in ("falls", "daily")]
    for share in shares:
        assert set(share) == {"n", "of", "by_seed", "share", "low", "high"}
        assert 0 <= share["low"] <= share["share"] <= share["high"] <= 1


def test_curves_rise_as_the_threshold_falls_and_end_at_the_counts(facts: report.Facts) -> None:
    assert [(c["method"], c["seed"]) for c in facts["curves"]] == [
        ("network", 1), ("network", 2), ("impact threshold", 1), ("network", 1),
    ]  # fmt: skip
    curve = facts["curves"][0]
    assert (curve["falls"], curve["daily"]) == (20, 40)
    assert curve["thresholds"] == sorted(curve["thresholds"], reverse=True)
    at_half = int(np.argmin(np.abs(np.array(curve["thresholds"]) - 0.5)))
    assert (curve["found"][at_half], curve["alarming"][at_half]) == (15, 2)
    assert (curve["found"][0], curve["alarming"][0]) == (0, 0)  # stricter than any score, suspicion included


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), rest=st.booleans(), hole=st.booleans())
def test_a_quick_look_says_what_the_daemon_says(seed: int, rest: bool, hole: bool) -> None:
    rng = np.random.default_rng(seed)
    seconds = float(rng.choice([1.3, 6.0, 14.7, 39.9]))
    t_s = 3.21 + np.arange(round(seconds * 25)) / 25
    accel_g = np.tile(np.array([0, 1, 0], np.float32), (len(t_s), 1))
    if not rest:
        moving = np.repeat(rng.random(40) < 0.5, 25)[: len(t_s)]
        accel_g[moving] += rng.normal(0, 0.5, (int(moving.sum()), 3)).astype(np.float32)
    if hole:
        t_s[len(t_s) // 2 :] += 2.0
    impact_s = 3.21 + float(rng.choice([1.0, 4.0, 12.0]))
    falls = (Fall(impact_s - 1.0, impact_s),) if rng.random() < 0.7 else ()
    stream = Stream("set", "set/1", "young", evaluate.runs_of(t_s, accel_g), falls, ((0.0, "x"),), seconds)
    rare = rng.choice([0.05, 0.2])
    count = len(evaluate.windows_of(stream, CARD))
    one = Scored(
        stream, True, rng.choice([0.01, 0.2, 0.4, 0.6, 0.9], count, p=[1 - 4 * rare, *[rare] * 4]).tolist()
    )
    card = with_threshold(CARD, float(rng.choice([0.3, 0.5, 0.7])))
    wanted = bool(evaluate.tally(one, card).detected) if falls else bool(evaluate.alarms(one, card))
    assert report.hit(one, card, report.window_ends(one, card)) == wanted


def test_a_quick_look_needs_the_daemon_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Scored] = []

    def counted(one: Scored, card: Card) -> Tally:
        asked.append(one)
        return evaluate.tally(one, card)

    monkeypatch.setattr(report, "tally", counted)
    ones = [one for one in people(15, 6) if one.single]
    found = report.curves([run_of(ones)], CARD)
    assert max(found[0]["found"]) == 15
    # Where a suspicion alone meets somebody at rest the samples decide.
    assert len(asked) < 0.25 * len(ones) * len(report.LOG_ODDS)


class Page(HTMLParser):
    """What a browser would load, and what a reader would see."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    parsed = Page()
    parsed.feed((written / "report.html").read_text(encoding="utf-8"))
    return parsed


def test_the_page_shows_the_counts_and_what_they_cannot_show(page: Page, facts: report.Facts) -> None:
    text = " ".join(page.text)
    for said in ("16/20 = 80.0 %", "58.4 to 91.9 %", "seeds 15 to 17", "3/40 = 7.5 %", "12/20 = 60.0 %"):
        assert said in text
    assert "person 04 of set: 1/5 = 20.0 %" in text  # the worst served, by number
    assert "back <fall>" in text  # escaped, and so not a tag
    for sentence in facts["limits"]:
        assert sentence in text
    assert re.search(r"acted", text)
    assert "0.4 hours" in text
    assert "No fall of a person of 60 or more is among them." in text


def test_the_page_loads_nothing_from_outside(page: Page, written: Path) -> None:
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    raw = (written / "report.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", raw)
    assert "@import" not in raw
    assert "url(" not in raw
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_who_does_not_see_the_figures_reads_them(page: Page, written: Path) -> None:
    pictures = sorted(p.stem for p in written.glob("*.png"))
    assert pictures == ["delays", "overview", "people", "trade-off-1", "trade-off-2"]
    assert len(page.images) == len(pictures)
    alts = [str(image["alt"]) for image in page.images]
    assert all(len(alt) > 40 for alt in alts)
    assert "16/20 = 80.0 % falls" in alts[0]
    assert any("worst person 04 of set" in alt for alt in alts)


def test_the_terminal_shows_the_same_counts(facts: report.Facts) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table(facts))
    shown = console.export_text()
    assert "16/20 = 80.0 %" in shown
    assert "10.00 (22.88)" in shown
    assert shown.index("network") < shown.index("impact threshold")


def test_each_person_is_judged_at_their_own_threshold() -> None:
    ones = [scored(person=f"set/{i}", impact_s=5.0, alarm_s=6.0) for i in (1, 2)]
    run = Run("network", UNSEEN, 1, ones, {"set/1": 0.5, "set/2": 0.999})
    counts: dict[str, Any] = {j.one.stream.person: j.count.detected for j in evaluate.judge([run], CARD)}
    assert counts == {"set/1": 1, "set/2": 0}


def test_a_report_on_daily_life_alone_is_written_too(tmp_path: Path) -> None:
    ones = [scored(person=f"hmp/{i}") for i in range(3)] + [scored(person="hmp/1", seconds=60.0, single=False)]
    facts = report.write([run_of(ones)], tmp_path, CARD)
    assert facts["curves"] == []
    assert "falls" not in facts["headline"][0]
    assert "0/3 = 0.0 %" in (tmp_path / "report.html").read_text(encoding="utf-8")
