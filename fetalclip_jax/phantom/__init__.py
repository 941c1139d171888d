"""A fetal ultrasound simulator: `phantom.simulator.Phantom(seed)[index]` is an example."""
