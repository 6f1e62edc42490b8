"""What tokenization rests on: kinds of characters, and vocabulary files."""
