"""Files, directories, JSON and the hub: read within limits, written whole. Nothing here knows a network or a format."""
