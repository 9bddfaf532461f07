"""Figures of reconstructions and of the analyses, drawn by matplotlib as pictures; ``style`` holds what they share."""
