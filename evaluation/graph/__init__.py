"""Search over a weighted graph: what may follow what, with costs, and the best way through it."""
