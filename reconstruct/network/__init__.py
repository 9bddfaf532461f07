"""What a network is: its layers, features and shapes, and where features are read. It knows no inversion."""
