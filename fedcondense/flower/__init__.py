"""The shells around Flower; the only wing that imports flwr."""
