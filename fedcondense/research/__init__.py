"""Scenarios: every site of a study on one machine, beside what it is held against."""
