"""What a user holds: the model classes, what goes in and comes out, loading by name, converting, inspecting."""
