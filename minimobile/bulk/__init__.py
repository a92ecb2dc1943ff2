"""Folders of pictures, large ones too: plans, parts, rows, and the workers that compute them, anywhere."""
