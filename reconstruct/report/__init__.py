"""Reports: pictures and pages of what was measured."""
