"""The TOML files that people write, as frozen models."""
