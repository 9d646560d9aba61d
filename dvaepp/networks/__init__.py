"""Neural networks of the encoder and the decoder."""
