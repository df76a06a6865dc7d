"""A grid file -> trials."""
