"""File formats: one module each, `recognise(path)` and `read(path) -> Checkpoint`."""
