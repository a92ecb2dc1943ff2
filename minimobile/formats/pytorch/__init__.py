"""PyTorch's files: pickles that are never run, and the schools that write them."""
