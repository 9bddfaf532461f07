"""Figures and pages of results. It computes nothing that a command does not print."""
