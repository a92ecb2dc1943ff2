"""What quantised operations do: one module each, and their table."""
