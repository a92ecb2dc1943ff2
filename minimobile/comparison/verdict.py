"""What comparisons end in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from minimobile.tables import Table


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison found. `first_difference` names what differs first, `diagnosis` says what it looks like, where
    known. `doubt` says what has not been examined, or not sharply enough.
    """

    first_difference: str | None
    diagnosis: str | None
    doubt: str | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether nothing differs that should not; None where that cannot be told."""
        if self.first_difference is not None:
            return False
        return True if self.doubt is None else None

    def table(self) -> Table:
        """Return what was compared, and the verdict in words below."""
        raise NotImplementedError

    def tables(self) -> tuple[Table, ...]:
        """Return all that is to be seen in a terminal, the verdict below the last."""
        return (self.table(),)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: {"agrees", "first_difference", "diagnosis", "doubt", ...}."""
        return {"agrees": self.agrees, **dataclasses.asdict(self)}
