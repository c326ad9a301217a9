"""How questions look on a terminal: plain lines anywhere, lists to move through where the terminal can."""

from __future__ import annotations

import getpass
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Asker(Protocol):
    """Whoever answers. Raises `KeyboardInterrupt` when they want to stop."""

    def say(self, text: str = "") -> None:
        """Show a line."""

    def text(self, ask: str, suggested: str = "", *, hidden: bool = False) -> str:
        """Return what is typed; the suggestion where nothing is."""

    def yes(self, ask: str, *, suggested: bool) -> bool:
        """Return yes or no."""

    def choose(self, ask: str, options: Sequence[str], suggested: str) -> str:
        """Return one of the options, each a word with an explanation after it at most."""

    def pick(self, ask: str, options: Sequence[str], suggested: Sequence[str]) -> list[str]:
        """Return some of the options."""


class Plain:
    """Lines alone: for a bad line, a dumb terminal, or output that a program reads."""

    def __init__(self) -> None:
        self._out = sys.stderr

    def say(self, text: str = "") -> None:
        """Show a line, broken between words where the terminal is narrow."""
        width = max(40, shutil.get_terminal_size().columns - 1)
        indent = " " * (len(text) - len(text.lstrip(" ")))
        for line in text.splitlines() or [""]:
            whole = textwrap.fill(line, width, subsequent_indent=indent, drop_whitespace=True)
            print(whole, file=self._out, flush=True)

    def text(self, ask: str, suggested: str = "", *, hidden: bool = False) -> str:
        """Return what is typed; the suggestion where nothing is."""
        prompt = f"{ask}{f' [{suggested}]' if suggested else ''}: "
        if hidden:
            return getpass.getpass(prompt)
        print(prompt, end="", file=self._out, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        return line.strip() or suggested

    def yes(self, ask: str, *, suggested: bool) -> bool:
        """Return yes or no."""
        while True:
            typed = self.text(f"{ask} (yes/no)", "yes" if suggested else "no").lower()
            if typed in {"y", "yes", "n", "no"}:
                return typed.startswith("y")

    def choose(self, ask: str, options: Sequence[str], suggested: str) -> str:
        """Return one of the options, by its number or its first word."""
        for number, option in enumerate(options, start=1):
            self.say(f"  {number} {option}")
        while True:
            typed = self.text(ask, suggested)
            found = [o for n, o in enumerate(options, start=1) if typed in {str(n), o, o.split(":")[0]}]
            if found:
                return found[0]

    def pick(self, ask: str, options: Sequence[str], suggested: Sequence[str]) -> list[str]:
        """Return some of the options, by numbers, or others by name."""
        for number, option in enumerate(options, start=1):
            self.say(f"  {number} {option}")
        typed = self.text(f"{ask} (numbers or names; none)", " ".join(suggested) or "none")
        by_number = {str(number): option for number, option in enumerate(options, start=1)}
        return [by_number.get(word, word) for word in typed.replace(",", " ").split() if word != "none"]


class Pretty(Plain):
    """Lists to move through with the arrows, where the terminal can."""

    def __init__(self) -> None:
        super().__init__()
        self._out = sys.stdout

    def text(self, ask: str, suggested: str = "", *, hidden: bool = False) -> str:
        """Return what is typed; the suggestion stands there to be changed."""
        import questionary  # noqa: PLC0415 - only where somebody sits before it

        typed = questionary.password(ask) if hidden else questionary.text(ask, default=suggested)
        return str(_answered(typed.unsafe_ask())).strip()

    def yes(self, ask: str, *, suggested: bool) -> bool:
        """Return yes or no."""
        import questionary  # noqa: PLC0415 - only where somebody sits before it

        return bool(_answered(questionary.confirm(ask, default=suggested).unsafe_ask()))

    def choose(self, ask: str, options: Sequence[str], suggested: str) -> str:
        """Return one of the options."""
        import questionary  # noqa: PLC0415 - only where somebody sits before it

        default = suggested if suggested in options else None
        return str(_answered(questionary.select(ask, list(options), default=default).unsafe_ask()))

    def pick(self, ask: str, options: Sequence[str], suggested: Sequence[str]) -> list[str]:
        """Return some of the options; where there are none, what is typed."""
        import questionary  # noqa: PLC0415 - only where somebody sits before it

        every = list(dict.fromkeys([*options, *suggested]))
        if not every:
            return self.text(f"{ask} (several with blanks between; empty: none)").split()
        other = "another, to be typed"
        choices = [questionary.Choice(option, checked=option in suggested) for option in [*every, other]]
        picked = [str(one) for one in _answered(questionary.checkbox(ask, choices).unsafe_ask())]
        if other in picked:
            picked += self.text("Which?").split()
        return [one for one in picked if one != other]


def _answered(value: T | None) -> T:
    if value is None:
        raise KeyboardInterrupt
    return value
