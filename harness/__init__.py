"""Compare on-policy distillation methods under enforced equal conditions."""

__version__ = "0.1.0"  # the one home: pyproject.toml reads it, CITATION.cff and CHANGELOG.md are tested against it
