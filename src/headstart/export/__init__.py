"""Classifiers in the formats of other libraries, each compared with PyTorch before it is handed over."""
