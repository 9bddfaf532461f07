"""Training: data, the loop, distillation from a teacher, and error rates."""
