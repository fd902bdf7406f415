"""Charts of the report page, as numbers for its templates."""
