"""TensorFlow.js: `model.json` with its shards of weights."""
