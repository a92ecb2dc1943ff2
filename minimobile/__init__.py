"""MobileNet V1, V2 and DeepLabV3+ without a deep-learning framework."""
