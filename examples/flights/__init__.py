"""The flights that left New York in 2013, as a demo of the closed loop.

``data`` reads them, ``model`` trains on them, ``replay`` plays the year back in order of time, ``delayed`` is a smaller
second example. None of these modules talks to the platform: they can be read, run and tested alone.
"""
