"""Models as they are stored: loading, the head, the pair, adapters, sizes."""
