"""Least squares, conjugate gradients and L-BFGS, for a batch of images at a time. They know no network."""
