"""Plots."""
from pathlib import Path


def run_plots(folder: Path) -> None:
    """placeholder replaced below"""
