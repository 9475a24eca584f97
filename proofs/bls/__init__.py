"""BLS12-381: points as bytes (`points`), signatures (`signatures`), two libraries for them."""
