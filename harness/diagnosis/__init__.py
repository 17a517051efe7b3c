"""What a pair of models and a method's gradients look like before anyone pays for training."""
