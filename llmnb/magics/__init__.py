"""`%load_ext llmnb`: the magics, their options and what completes them."""
