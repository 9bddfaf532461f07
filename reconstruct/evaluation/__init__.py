"""Whole sets of images: batches on one machine or on Ray, results that survive a kill, and where they come from."""
