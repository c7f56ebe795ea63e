"""Passes over data sets: outputs, predictions and scores of many rows."""
