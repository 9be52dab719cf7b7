"""Backbones, their weights, and where a network is cut into a frozen prefix and a trainable suffix."""
