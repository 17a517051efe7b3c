"""What a person sees: progress, the live view, exit codes."""
