"""The kernels of quantised networks: bytes in, bytes out, integers between, as in LiteRT.

The definitions are `reference.py`, `reference_maps.py` and `reference_activations.py`; `../reference.py` defines how a
sum comes to a byte. The fast forms give the same bytes and are called by `machine.run`, which walks a program of
`step.STEP` records.
"""
