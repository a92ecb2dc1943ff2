"""What the site's reference makes of docstrings: an extension of Griffe, which reads them."""

from __future__ import annotations

from typing import Any

import griffe

from tools.documentation import write_docstring


class AsWritten(griffe.Extension):
    """Shows docstrings as they are written."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of what was just read."""
        if obj.docstring:
            obj.docstring.value = write_docstring(obj.docstring.value)
