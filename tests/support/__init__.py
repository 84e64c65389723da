"""Small real things that several tests make: tokenizers, models, rows, projects."""
