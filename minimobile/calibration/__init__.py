"""From a float network to one of integers: the papers' methods, a function each. Nothing here needs gradients."""
