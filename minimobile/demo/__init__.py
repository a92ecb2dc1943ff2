"""The embedded models and pictures."""
