"""Log-probs, credit and loss: the arithmetic of a step, on tensors alone."""
