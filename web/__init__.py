"""The HTTP front end: the API, and the pages over it. Flask; imports neither torch nor numpy."""
