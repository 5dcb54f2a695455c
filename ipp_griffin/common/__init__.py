"""Small tools without a home of their own: errors, retry, text, threads, processes, addresses, times."""
