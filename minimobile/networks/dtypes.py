"""Names of number types, whoever has them: NumPy, torch, or a text."""

from __future__ import annotations


def name_dtype(dtype: object) -> str:
    """Return a number type's name: that of a text, of torch.float32, np.float32 or a NumPy dtype.

    >>> name_dtype("float32"), name_dtype(float)
    ('float32', 'float')
    """
    text = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    return str(text).removeprefix("torch.")
