"""Training of converted models: pieces that are each usable alone in any PyTorch loop, and one call of all of them."""
