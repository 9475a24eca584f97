"""From a request's host, path and query to content: hosts, names, redirects."""
