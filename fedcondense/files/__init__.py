"""How anything is written: atomically, canonically, and as one self-contained page."""
