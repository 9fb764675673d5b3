"""Raw text to an indexed corpus: read shards in pieces, tokenize on many cores, write and merge parts; safe to kill."""
