"""A page to matte photos in a browser: ``python -m client.page``."""
