"""What happened inside a run: ranges and times of layers, channels as pictures, one value as its sum."""
