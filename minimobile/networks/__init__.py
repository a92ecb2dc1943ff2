"""The papers' networks as graphs: configs, anchors, and the builders that follow the papers' tables."""
