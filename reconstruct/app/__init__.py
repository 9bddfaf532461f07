"""The interactive page: its controls, an inversion that can be watched, and what is shown of it."""
