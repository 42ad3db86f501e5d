"""Recognisers behind one interface: spiking (conventional, v1, v2) and LSTM, GRU."""
