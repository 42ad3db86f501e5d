"""The event-driven recogniser: a streaming engine that does work only for spikes."""
