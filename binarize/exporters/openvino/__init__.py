"""OpenVINO's files of a packed model."""
