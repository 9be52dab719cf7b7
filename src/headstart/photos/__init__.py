"""From files to pixels: the catalog, the split, decoding and views."""
