"""Real text and real weights: pinned sources, and corpora as streams of documents."""
