"""Pictures of photos and runs, the HTML page and the model card."""
