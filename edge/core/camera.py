"""What a camera's stream of observations says about falls."""

from __future__ import annotations

from edge.core.detector import Finding
from edge.core.seen import Seen
from models.scorer import Scorer


class CameraJudge:
    """Weighs one camera's observations; times are those of `Seen`."""

    def __init__(self, scorer: Scorer | None) -> None:
        """Begin; without a scorer only the time on the floor alarms."""
        self.scorer = scorer

    def observe(self, seen: Seen) -> list[Finding]:  # noqa: ARG002 - not written yet
        """Take one frame's observation."""
        return []

    def on_silence(self) -> list[Finding]:
        """Settle what is being weighed: the camera fell silent."""
        return []
