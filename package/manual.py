"""Manual pages and shell completion, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from edge.cli import app

FILES = """
.TP
.I /etc/fallwatch/fallwatch.toml
The home's settings.
.TP
.I /etc/fallwatch/secrets/
Keys, tokens and passwords.
.TP
.I /var/lib/fallwatch/
Incidents, the record kept here, counters.
"""
STATUS = """
.TP
0
All is well.
.TP
1
Something asked about is not well.
.TP
2
Bad usage or settings; one line names what and where.
"""


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that call it, groups of commands before their own."""
    yield words, group
    for name, command in sorted(getattr(group, "commands", {}).items()):
        yield from commands(command, (*words, name))


def manual_pages(release: str) -> dict[str, str]:
    """Return each command's manual page by its name, such as ``fallwatch-pair``."""
    root = typer.main.get_command(app)
    return {"-".join(("fallwatch", *words)): _page(words, command, release) for words, command in commands(root)}


def bash_completion() -> str:
    """Return completion for bash: words alone, so that a Pi need not start Python at each tab."""
    cases = []
    for words, command in commands(typer.main.get_command(app)):
        offered = [*sorted(getattr(command, "commands", {})), *sorted(_options(command)), "--help"]
        cases.append(f"        '{' '.join(words)}') offered='{' '.join(dict.fromkeys(offered))}' ;;")
    return "\n".join(
        [
            "# Completion of fallwatch for bash: commands, then their options, then files.",
            "_fallwatch() {",
            "    local word before='' offered=''",
            "    COMPREPLY=()",
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '        [[ $word == -* ]] && break || before="${before:+$before }$word"',
            "    done",
            "    # What is no command is an argument of the one before it.",
            '    while [[ -n $before ]] && ! _fallwatch_words "$before"; do',
            "        [[ $before == *' '* ]] && before=${before% *} || before=''",
            "    done",
            '    _fallwatch_words "$before"',
            '    mapfile -t COMPREPLY < <(compgen -W "$offered" -- "${COMP_WORDS[COMP_CWORD]}")',
            "}",
            "_fallwatch_words() {",
            '    case "$1" in',
            *cases,
            "        *) return 1 ;;",
            "    esac",
            "}",
            "complete -o default -F _fallwatch fallwatch",
            "",
        ]
    )


def _page(words: tuple[str, ...], command: Any, release: str) -> str:
    name = "-".join(("fallwatch", *words))
    says = " ".join((command.help or "").split())
    lines = [
        f'.TH {name.upper()} 1 "" "fallwatch {release}" "fallwatch"',
        ".SH NAME",
        f"{name} \\- {_roff(says.split('. ')[0].split(': ')[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {' '.join(('fallwatch', *words))}",
        _roff(" ".join(["[OPTION]...", *_arguments(command)])),
        ".SH DESCRIPTION",
        _roff(says),
    ]
    below = getattr(command, "commands", {})
    if below:
        lines.append(".SH COMMANDS")
        for other, its in sorted(below.items()):
            lines += [".TP", f".BR {'-'.join(('fallwatch', *words, other))} (1)"]
            lines.append(_roff(" ".join((its.help or "").split())))
    shown = [p for p in command.params if p.param_type_name == "option"]
    if shown:
        lines.append(".SH OPTIONS")
        for option in shown:
            lines += [
                ".TP",
                f".B {_roff(', '.join(option.opts + option.secondary_opts))}",
                _roff(option.help or ""),
            ]
    if command.epilog:
        lines += [".SH EXAMPLE", ".nf", _roff(command.epilog.removeprefix("Example: ")), ".fi"]
    lines += [".SH EXIT STATUS", STATUS.strip(), ".SH FILES", FILES.strip()]
    lines += [".SH SEE ALSO", ".BR fallwatch (1),", "/usr/share/doc/fallwatch/docs"]
    return "\n".join(lines) + "\n"


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield from (name for name in parameter.opts + parameter.secondary_opts if name.startswith("--"))


def _arguments(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or (parameter.name or "").upper()
            yield name if parameter.required or name.startswith("[") else f"[{name}]"


def _roff(text: str) -> str:
    """Escape what troff would take for its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
