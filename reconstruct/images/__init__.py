"""Pictures, features and sets of images from files, their quality, and files written whole. It knows no method."""
