"""Networks in integers: as data, as definitions, and compiled. Knows no file format."""
