"""The program of the child process that reads HDF5 files: it may crash, and nothing else does.

Its modules import h5py, NumPy, the standard library and each other, so that it starts in a tenth of a second.
"""


class RefusalError(Exception):
    """Something in the file is not allowed: one sentence that begins with the place in the file."""
