def write(outcome, folder):
    pass
