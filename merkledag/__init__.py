"""Content-addressed data: identifiers, codecs, UnixFS, traversal, paths and CAR, all without I/O."""
