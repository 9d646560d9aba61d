"""What ``validation.gradients`` rests on: measured derivatives, definitions to measure, the tiny model in torch."""
