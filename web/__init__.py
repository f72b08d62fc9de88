"""The HTTP front end: the API, and the pages over it. Flask; imports neither torch nor numpy.

A view checks a request, calls :mod:`mien`, and answers. What a job is and how it changes is not decided here, and no
image is decoded in this process. Neither ``worker`` nor ``training`` comes in here.
"""
