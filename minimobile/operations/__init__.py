"""What the nodes of a graph do: one module per operation, their table, and what is done with graphs of them."""
