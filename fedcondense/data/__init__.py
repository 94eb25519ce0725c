"""Radiographs as tensors: reading, phantoms, groups, splits and partitions over sites."""
