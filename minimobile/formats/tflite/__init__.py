"""TFLite files: FlatBuffers, floats and quantised networks."""
