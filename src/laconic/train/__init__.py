"""Training: data splits and the loops that make models."""
