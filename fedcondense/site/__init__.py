"""The hospital's own path, from its images to sealed bytes."""
