"""Backends of the LIF recurrence; ``training.recurrence`` chooses among them. See README.md."""
