"""TensorFlow's files: checkpoints and frozen graphs."""
