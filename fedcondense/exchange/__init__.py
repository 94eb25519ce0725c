"""What crosses the wire: contributions, the keys that sign and seal them, run descriptions."""
