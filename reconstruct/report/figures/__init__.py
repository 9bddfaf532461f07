"""Figures of reconstructions and of the analyses, as pictures that matplotlib draws."""
