"""ABCI 2.0: the messages, their frames on a socket, and the server that answers them."""
