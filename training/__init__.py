"""Spiking networks with a custom LIF recurrence, LSTM and GRU baselines, and their training."""
