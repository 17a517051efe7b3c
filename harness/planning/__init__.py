"""What a comparison takes and would do, before it is run."""
