"""Keras' files: archives, models and weights of Keras 2 and 3."""
