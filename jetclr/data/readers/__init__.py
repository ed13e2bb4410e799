"""One module a public jet format; each yields jagged chunks in bounded memory."""
