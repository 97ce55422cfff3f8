"""Reading: SQL over tables, and bundles that pin them."""
