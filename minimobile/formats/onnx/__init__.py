"""ONNX files: protobuf messages -> nodes and tensors -> layers -> checkpoint."""
