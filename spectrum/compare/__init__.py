"""Methods against each other and against other caches: runs, figures, pictures."""
