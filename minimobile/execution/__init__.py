"""From a graph to a run: the program of kernel calls, its arena, threads and times; and what a detector's run found."""
