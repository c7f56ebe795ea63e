"""The mathematics of the multilayer perceptron: activations, losses, layers, the network."""
