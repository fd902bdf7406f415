"""The policy: everything that touches the network without training it."""
