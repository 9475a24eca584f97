"""The HTTP gateway: content by CID, for browsers and for verifying clients."""
