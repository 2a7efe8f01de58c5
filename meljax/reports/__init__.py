"""HTML pages with figures, and text summaries, of one run or several."""
