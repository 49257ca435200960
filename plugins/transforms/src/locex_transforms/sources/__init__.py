"""Local data sources: files in the site's data folder."""
