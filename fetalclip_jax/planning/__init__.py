"""What a training step costs on devices that need not be there: memory, time, communication."""
