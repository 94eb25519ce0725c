"""The gate: nothing leaves a site before it says so."""
