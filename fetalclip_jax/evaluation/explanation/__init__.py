"""Where in an image a model sees what a prompt says."""
