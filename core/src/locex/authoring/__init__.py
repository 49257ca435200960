"""What `locex plugin new` makes: a package of a plugin author's own, from a copier template."""
