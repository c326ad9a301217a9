"""One set-up from first question to last: asks or takes what is given, tries each part, keeps every answer."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.checked import SettingsError, build
from edge.clock import monotonic_s
from edge.doctor.finding import Finding
from edge.settings import Settings
from edge.setup.progress import Progress
from edge.setup.questions import (
    LEFT_OUT,
    NONE,
    QUESTIONS,
    BadAnswer,
    Found,
    Question,
    Row,
    next_question,
    suggestion,
    unasked,
    usable,
)
from edge.setup.terminal import Asker
from edge.setup.written import settings_text

_AFTER_FAULT = (
    "again: try again",
    "change: answer these questions anew",
    "on: go on, it is listed at the end",
    "out: leave this part out for now",
)
# What stands in for answers that come later, while those before are checked.
_LATER = {"record_url": "https://later.example", "record_token_file": "later"}
_LISTS = ("residents_file", "residents_ward")  # a list of residents comes from there


@dataclass(frozen=True, slots=True, kw_only=True)
class Deeds:
    """What a set-up does besides asking; tests have their own."""

    try_part: Callable[[str, Settings, Mapping[str, Any]], Sequence[Finding]]
    keep_secret: Callable[[Question, str, bool], str]  # a path or what was typed; returns the path it is kept at
    read_list: Callable[[Question, str, Settings], tuple[list[dict[str, Any]], list[Finding]]]
    keep: Callable[[Progress], None]
    tell: Callable[[Finding], None]


@dataclass(slots=True, kw_only=True)
class Guide:
    """A set-up under way."""

    asker: Asker | None  # None: nobody can be asked
    found: Found
    given: dict[str, Any]  # by flags and the answers file
    before: str  # the present settings file; empty: none
    config: Path
    deeds: Deeds
    progress: Progress = field(default_factory=Progress)
    yes: bool = False
    dry_run: bool = False
    clock: Callable[[], float] = monotonic_s
    doubts: list[Finding] = field(default_factory=list)
    _began_s: float = 0.0
    _before_s: float = 0.0

    def __post_init__(self) -> None:
        self._began_s, self._before_s = self.clock(), self.progress.spent_s

    def spent_s(self) -> float:
        """Return how long it has taken so far, runs that were stopped included."""
        return self._before_s + self.clock() - self._began_s

    @property
    def answers(self) -> dict[str, Any]:
        """All answers so far."""
        return self.progress.answers

    def run(self) -> str:
        """Return the settings file that the answers come to, checked.

        Raises:
            BadAnswer: an answer cannot be used, or is missing where nobody can be asked.
            KeyboardInterrupt: whoever is asked wants to stop; the answers are kept.
        """
        for key in [key for key in self.answers if key in self.given]:
            del self.answers[key]  # what is given now counts
        part = ""
        while True:
            question = next_question(self.answers, self.found, self.given)
            if part and (question is None or question.part != part) and self._try(part):
                continue
            if question is None:
                self.settings_of(self.answers)
                return self.text_of(self.answers)
            part = question.part
            self._answer(question)

    def text_of(self, answers: Mapping[str, Any]) -> str:
        """Return the settings file that some answers come to."""
        return settings_text(self.before, answers, self.config.parent / "secrets")

    def settings_of(self, answers: Mapping[str, Any]) -> Settings:
        """Return the settings that some answers come to.

        Raises:
            BadAnswer: they cannot be used together.
        """
        later = _LATER if answers.get("record") == "fhir-r4" else {}
        try:
            settings = build(Settings, tomllib.loads(self.text_of({**later, **answers})), self.config, "")
        except SettingsError as error:
            raise BadAnswer(f"{error.key}: {error.remedy}") from None
        return dataclasses.replace(settings, path=self.config)

    # -- one question ---------------------------------------------------------------------------

    def _answer(self, question: Question) -> None:
        if question.key in self.given:
            value = self._taken(question, self.given[question.key])
        elif self.asker is None or (self.yes and self._suggested(question) is not None):
            value = self._taken(question, unasked(question, self.answers, self.found, yes=self.yes))
        else:
            value = self._asked(question, self.asker)
        self.answers[question.key] = value
        self.keep()

    def _suggested(self, question: Question) -> Any:
        return suggestion(question, self.answers, self.found)

    def _asked(self, question: Question, asker: Asker) -> Any:
        asker.say()
        asker.say(question.ask)
        if question.why:
            asker.say(f"  {question.why}")
        while True:
            try:
                value = usable(question, self._typed(question, asker))
                return self._taken(question, value)
            except BadAnswer as error:
                asker.say(f"That cannot be used: {error}")

    def _taken(self, question: Question, value: Any) -> Any:
        """Return an answer once it goes with the others, and what it names has been read or put away."""
        if question.kind == "secret" or (question.key == "record_key_file"):
            value = value if self.dry_run else self.deeds.keep_secret(question, value, self.asker is not None)
        if question.key in _LISTS:
            rows, problems = self.deeds.read_list(question, value, self.settings_of(self.answers))
            self._doubt(problems)
            self.settings_of({**self.answers, "residents": rows})
            self.answers["residents"] = rows
            return value
        if "home_id" in self.answers or self.before or question.key == "home_id":
            try:
                self.settings_of({**self.answers, question.key: value})
            except BadAnswer as error:
                raise BadAnswer(f"{question.key} ({question.flag}): {error}") from None
        return value

    def _typed(self, question: Question, asker: Asker) -> Any:
        suggested = self._suggested(question)
        self.progress.asked += question.kind != "rows"  # of those each field counts
        match question.kind:
            case "yes":
                return asker.yes("Yes or no?", suggested=bool(suggested))
            case "choice":
                options = list(question.choices(self.answers, self.found))
                return asker.choose("Which?", options, str(suggested or options[0])).split(":")[0]
            case "texts" if question.key == "receivers":
                options = list(question.choices(self.answers, self.found))
                return asker.pick("Which?", options, suggested or [])
            case "texts" | "numbers":
                words = " ".join(f"{v:g}" if isinstance(v, float) else v for v in suggested or [])
                return asker.text("In order", words)
            case "rows":
                return self._rows(question, asker, suggested or [])
            case "secret":
                return asker.text("Token or path" if "token" in question.key else "Password or path", hidden=True)
        return asker.text("Answer", str(suggested or ""))

    def _rows(self, question: Question, asker: Asker, suggested: list[Any]) -> list[Any]:
        """Return the lines of a list, each asked field by field."""
        if suggested:
            for row in suggested:
                asker.say(f"  {_row_words(row)}")
            self.progress.asked += 1
            if asker.yes("Leave it so?", suggested=True):
                return suggested
        rows: list[Any] = []
        seeds = question.seeds(self.answers, self.found) if question.seeds else None
        if seeds is not None:
            for seed in seeds:
                asker.say(f"- {_row_words(seed)}")
                if (row := self._row(question, asker, seed)) is not None:
                    rows.append(row)
            return rows
        while (row := self._row(question, asker, {})) is not None:
            rows.append(row)
            if question.fields[0].choices:
                self.progress.asked += 1
                if not asker.yes("Another one?", suggested=False):
                    break
        return rows

    def _row(self, question: Question, asker: Asker, seed: Row) -> dict[str, Any] | None:
        """Return one line; None where its first field is left empty."""
        known = {f.name for f in dataclasses.fields(question.row(seed))}
        row: dict[str, Any] = {}
        while True:
            typed, row = row, {key: value for key, value in seed.items() if key in known}
            for number, asked in enumerate(question.fields):
                if asked.key in row or not asked.when(row, self.answers):
                    continue
                self.progress.asked += 1
                suggested = str(typed.get(asked.key) or asked.suggest(row))
                if asked.choices:
                    value = asker.choose(asked.ask, asked.choices, suggested)
                else:
                    value = asker.text(asked.ask, suggested)
                if not value and (number == 0 or asked.key in {"port", "host", "url"}):
                    return None
                if value:
                    row[asked.key] = value
            try:
                (whole,) = usable(question, [row])
            except BadAnswer as error:
                asker.say(f"That cannot be used: {error}")
                continue
            return dict(whole)

    # -- one part -------------------------------------------------------------------------------

    def _try(self, part: str) -> bool:
        """Try a part that has just been answered; return whether there is something to be asked anew."""
        if self.dry_run or part in self.progress.tried or self._as_before(part):
            return False
        while True:
            settings = self.settings_of(self.answers)
            findings = list(self.deeds.try_part(part, settings, self.answers))
            for finding in findings:
                self.deeds.tell(finding)
            faults = [finding for finding in findings if finding.state == "fault"]
            wanted = "on"
            if faults and self.asker is not None:
                self.progress.asked += 1
                options = _AFTER_FAULT if part in LEFT_OUT else _AFTER_FAULT[:3]
                wanted = self.asker.choose("What now?", options, options[0]).split(":")[0]
            if wanted == "again":
                continue
            if wanted == "change":
                for question in QUESTIONS:
                    if question.part == part:
                        self.answers.pop(question.key, None)
                        self.given.pop(question.key, None)
                return True
            if wanted == "out":
                self.answers.update(LEFT_OUT[part])
            self.doubts += faults
            self.progress.tried.append(part)
            self.keep()
            return wanted == "out"

    def _as_before(self, part: str) -> bool:
        """Tell whether the settings said all of it already: what runs is looked at by the doctor at the end."""
        keys = [q.key for q in QUESTIONS if q.part == part and q.key in self.answers]
        return all(self.answers[key] == self.found.present.get(key, NONE) for key in keys)

    def _doubt(self, problems: list[Finding]) -> None:
        for problem in problems:
            self.deeds.tell(problem)
        self.doubts += problems

    def keep(self) -> None:
        """Have the answers on disk, where somebody typed them."""
        if self.asker is not None and not self.dry_run:  # what nobody typed is given again, or suggested anew
            self.progress.spent_s = self.spent_s()
            self.deeds.keep(self.progress)


def _row_words(row: Row) -> str:
    hidden = ("nhs_number", "local_id")
    return ", ".join(f"{key} {value}" for key, value in row.items() if value and key not in hidden)
