"""Files of weights and models, read without running code from them."""
