"""From a teacher's compressions to labels for a small model."""
