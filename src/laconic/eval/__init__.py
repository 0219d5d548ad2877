"""Evaluation: tasks x methods x rates, one row an example; tables, curves and intervals."""
