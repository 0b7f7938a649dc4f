"""Builds the site: mkdocs.yml names the hooks and the extension, which use the rest."""
