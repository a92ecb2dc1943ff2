"""From the layers that a file spells out to a network of ours."""
