"""Soft compression: a context becomes a few key/value slots that one language model reads in place of the text."""
