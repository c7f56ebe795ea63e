"""The multilayer perceptron: activations, losses, layers and the network."""
