"""Many jobs in one folder: read, checked, named, made once, whatever happens on the way."""
