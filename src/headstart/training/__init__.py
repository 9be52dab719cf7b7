"""The activation store, embedding, the probe and fine-tuning."""
