"""The align stage: which phone is spoken in each frame, from transcripts alone."""
