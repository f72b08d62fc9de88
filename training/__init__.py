"""Making and judging models: data, training, evaluation, calibration and packaging (needs the ``training`` extra).

Nothing here changes a job; people's answers are read, no more (``training.reviewed``). Of ``worker`` it takes only the
detector, the crops and the classifier, so that a model is trained and judged on exactly what it will see. Neither
``web`` nor ``cli`` comes in here.
"""
