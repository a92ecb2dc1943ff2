"""From a picture to pixel values and back: opening, image processors, post-processing, drawing. Knows no network."""
