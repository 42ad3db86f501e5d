"""Error rates, decoding and multiplication counts of trained recognisers."""
