"""Runs precision-scaling experiments: config -> tokens -> stack of models -> training -> PTQ -> records."""
