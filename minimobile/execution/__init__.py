"""From a graph to a run: the program of kernel calls, its arena, its threads, and its time step by step."""
