"""Compare on-policy distillation methods under enforced equal conditions."""

from harness.console.start import check_start

__version__ = "0.1.0"  # the one home: pyproject.toml reads it, CITATION.cff and CHANGELOG.md are tested against it

check_start()
