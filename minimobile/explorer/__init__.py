"""The page that shows a run: what is exported for it, and the HTML, CSS and JavaScript that it consists of."""
