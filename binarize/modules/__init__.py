"""Verbs on any nn.Module: hooks, copies, modes, outputs, tensors, places."""
