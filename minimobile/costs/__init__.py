"""What a network costs before it runs: parameters, multiply-adds, memory of activations, receptive fields."""
