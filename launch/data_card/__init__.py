"""Data cards: what a set of synthetic images is, how near it is to its training images, and what it is good for."""
