"""One file per revision of the schema, named after its number and what it does."""
