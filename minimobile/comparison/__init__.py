"""Is it the same, and is it faster? Other frameworks' values, bounds of rounding, diagnosis, rivals, benchmarks."""
