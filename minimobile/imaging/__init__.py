"""From a picture to an array: what `image_processing.py` is made of. Nothing here knows a network."""
