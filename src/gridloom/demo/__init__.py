"""One small world (house, car, street, clock) that the simulators share."""
