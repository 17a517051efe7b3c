"""Opens what `engine=` asks for: who samples, who scores, and how weights get there."""
