"""Float attentions taken apart, so that their projections are layers of their own."""
