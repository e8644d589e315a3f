"""Figures that users can reproduce, and the seeded data that they are made from."""
