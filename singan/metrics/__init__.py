"""What can be said about samples: one file a family of metrics, pure functions giving one value per sample or image."""
