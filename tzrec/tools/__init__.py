"""Tools beside the main job."""
