"""Trainings that belong together, and what they say."""
