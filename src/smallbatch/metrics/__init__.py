"""Scores of samples: features, reference statistics, distances, and what they do not say."""
