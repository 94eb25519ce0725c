"""The distillation algorithms as pure functions over a `Source` of patient data."""
