"""One run: the trainer, its step, its records, its ranks."""
