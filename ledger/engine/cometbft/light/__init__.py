"""A light client of CometBFT: believes a header because two thirds of the voting power signed it.

`canonical` has the bytes that are hashed and signed, `header`, `votes` and `validators` the parts of a light
block, `block` the whole of it, `verify` the rules by which one is trusted because of another: all pure.
`client` asks servers and follows a chain from a pinned header on. Nothing here opens a file.
"""
