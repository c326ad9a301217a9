"""What a service says of itself each second: a small JSON file on tmpfs, replaced whole.

It is at once heartbeat (its age), status (its content) and the way around a journal that cannot be
written (incidents not yet on disk). Readers never see half of one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.clock import boot_id, monotonic_s


def write_runfile(path: Path, body: dict[str, Any]) -> bool:
    """Replace the file; return whether that worked."""
    stamped = {"boot": boot_id(), "mono_s": monotonic_s(), **body}
    new = path.with_suffix(".new")
    try:
        new.write_text(json.dumps(stamped), encoding="utf-8")
        new.replace(path)
    except OSError:
        return False
    return True


def read_runfile(path: Path) -> dict[str, Any] | None:
    """Return what the service last said in this boot, or None; ``age_s`` tells how long ago."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        age_s = monotonic_s() - float(body["mono_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(body, dict) or body.get("boot") != boot_id() or age_s < 0:
        return None
    return {**body, "age_s": round(age_s, 3)}
