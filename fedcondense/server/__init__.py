"""The coordinator's path, from sealed bytes to a scored global synthetic set."""
