class TooOld:
    pass
