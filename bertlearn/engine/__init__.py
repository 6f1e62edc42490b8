"""What the chapters lean on but do not teach: running and saving notebooks."""
