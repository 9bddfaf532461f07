"""The Gaussian prior of natural images, and what it makes of a network: covariances, estimated without any image."""
