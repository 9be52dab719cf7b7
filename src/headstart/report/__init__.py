"""Pictures and the HTML page, made from the run folder's files alone."""
