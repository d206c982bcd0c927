"""Recipes of the paper's public configurations (arXiv 2310.02903), on one GPU."""
