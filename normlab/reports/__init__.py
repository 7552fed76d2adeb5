"""Shows evidence: tables, figures, words, HTML, Markdown, published pages."""
