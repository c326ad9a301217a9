"""The walked rooms drawn on the home's plan, as SVG: colour, hatching and letter each say the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from edge.core.walk import Cover, Room
from edge.walk.book import Spot

TILE = 46.0  # px, a room; the paper's width is what it is drawn on
_LEAST_PX_M, _MOST_PX_M = 6.0, 80.0
_LEGEND_PX = 132.0
_UNWALKED = ("?", "not walked", "#ffffff")
_LOOKS: Mapping[Cover, tuple[str, str, str]] = {
    Cover.GOOD: ("G", "good", "#bfe3c0"),
    Cover.WEAK: ("W", "weak", "#ffe08a"),
    Cover.NONE: ("N", "no cover", "#f2a9a0"),
}
# A photocopier knows no colours: weak is lined, no cover is crossed.
_PATTERNS = (
    '<defs><pattern id="weak" width="8" height="8" patternUnits="userSpaceOnUse">'
    '<path d="M0 8L8 0" stroke="#000" stroke-width="0.8"/></pattern>'
    '<pattern id="none" width="8" height="8" patternUnits="userSpaceOnUse">'
    '<path d="M0 8L8 0M0 0L8 8" stroke="#000" stroke-width="1.1"/></pattern></defs>'
)
_HATCH = {Cover.WEAK: "url(#weak)", Cover.NONE: "url(#none)"}


def walk_map(plan: Sequence[Spot], rooms: Mapping[str, Room], *, title: str) -> str | None:
    """Return the map as an SVG document; None where no room of the plan has a place."""
    spots = [spot for spot in plan if spot.at_m is not None]
    places = [spot.at_m for spot in spots if spot.at_m is not None]
    if not any(spot.kind == "room" for spot in spots):
        return None
    left, top = min(x for x, _ in places), min(y for _, y in places)
    scale = _px_m([spot.at_m for spot in spots if spot.kind == "room" and spot.at_m is not None])
    width = max((max(x for x, _ in places) - left) * scale + 2 * TILE, 4 * _LEGEND_PX)
    height = (max(y for _, y in places) - top) * scale + 2 * TILE
    drawn = []
    for spot, (x, y) in zip(spots, places, strict=True):
        at = ((x - left) * scale + TILE, (y - top) * scale + TILE + 26)
        drawn.append(_receiver(spot.name, *at) if spot.kind == "receiver" else _room(spot, rooms, *at))
    total = height + 62
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {total:.0f}" role="img" '
        f'font-family="DejaVu Sans, Arial, sans-serif" font-size="10"><title>{escape(title)}</title>{_PATTERNS}'
        f'<rect width="{width:.0f}" height="{total:.0f}" fill="#fff"/>'
        f'<text x="8" y="18" font-size="13" font-weight="bold">{escape(title)}</text>'
        f"{''.join(drawn)}{_legend(height + 30)}{_metres(width, height + 30, scale)}</svg>\n"
    )


def _px_m(rooms: Sequence[tuple[float, float]]) -> float:
    """Return how many px a metre is, so that neighbours' tiles do not touch."""
    nearest_m = min((math.dist(a, b) for i, a in enumerate(rooms) for b in rooms[:i] if a != b), default=5.0)
    return min(max(1.25 * TILE / nearest_m, _LEAST_PX_M), _MOST_PX_M)


def _room(spot: Spot, rooms: Mapping[str, Room], x: float, y: float) -> str:
    room = rooms.get(spot.name)
    letter, word, _ = _UNWALKED if room is None else _LOOKS[room.cover]
    worst = room.worst if room is not None else None
    told = word
    if worst is not None and worst.packets:
        strength = "" if worst.rssi_median_dbm is None else f"{worst.rssi_median_dbm:g} dBm, "
        told = f"{strength}{worst.lost_part:.0%}"
    return (
        _tile(x, y, TILE, None if room is None else room.cover)
        + _text(x, y - 9, spot.name, f'font-size="{_fitting(spot.name)}"')
        + _text(x, y + 8, letter, 'font-size="15" font-weight="bold"')
        + _text(x, y + 19, told, 'font-size="6.5"')
    )


def _tile(x: float, y: float, side: float, cover: Cover | None) -> str:
    box = f'x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:g}" height="{side:g}" rx="4"'
    fill = (_UNWALKED if cover is None else _LOOKS[cover])[2]
    dashed = ' stroke-dasharray="4 3"' if cover is None else ""
    hatch = f'<rect {box} fill="{_HATCH[cover]}" opacity="0.55"/>' if cover in _HATCH else ""
    return f'<rect {box} fill="{fill}"/>{hatch}<rect {box} fill="none" stroke="#000"{dashed}/>'


def _fitting(name: str) -> float:
    """Return the size at which a name fits a tile."""
    return round(min(11.0, 1.5 * TILE / max(len(name), 1)), 1)


def _text(x: float, y: float, text: str, style: str) -> str:
    """Return centred text with a white rim, which keeps it legible on the hatching."""
    rim = 'text-anchor="middle" stroke="#fff" stroke-width="3" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {rim} {style}>{escape(text)}</text>'


def _receiver(name: str, x: float, y: float) -> str:
    return (
        f'<path d="M{x:.1f} {y - 11:.1f}l10 18h-20z" fill="#000"/>'
        + _text(x, y + 4, "R", 'font-size="8" font-weight="bold"').replace('stroke="#fff"', 'fill="#fff"')
        + _text(x, y + 17, name, 'font-size="8"')
    )


def _legend(y: float) -> str:
    words = [(cover, *_LOOKS[cover][:2]) for cover in Cover] + [(None, *_UNWALKED[:2])]
    drawn = ""
    for i, (cover, letter, word) in enumerate(words):
        x = 20 + i * 0.75 * _LEGEND_PX
        drawn += _tile(x, y, 18, cover) + _text(x, y + 4, letter, 'font-weight="bold"')
        drawn += f'<text x="{x + 14:.1f}" y="{y + 4:.1f}">{word}</text>'
    return drawn


def _metres(width: float, y: float, scale: float) -> str:
    """Return a rule of 5 m, or of 1 m on a small plan."""
    metres = 5 if 5 * scale < _LEGEND_PX else 1
    x = width - metres * scale - 12
    return (
        f'<path d="M{x:.1f} {y - 3:.1f}v6m0 -3h{metres * scale:.1f}m0 -3v6" stroke="#000" fill="none"/>'
        f'<text x="{x + metres * scale / 2:.1f}" y="{y + 14:.1f}" text-anchor="middle">{metres} m</text>'
    )
