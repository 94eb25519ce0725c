"""Networks, augmentation, classifiers and their scores; knows nothing of hospitals."""
