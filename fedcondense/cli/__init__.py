"""The commands; the only wing that writes to a terminal."""
