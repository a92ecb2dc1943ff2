"""The papers' networks as graphs: configs, builders, shapes, and the passes that simplify a graph."""
