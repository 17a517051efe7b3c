"""Compare on-policy distillation methods under enforced equal conditions."""
