"""IPFS content: CIDs, codecs, UnixFS, directories, traversal and CAR files, as pure functions of bytes."""
