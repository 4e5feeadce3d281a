"""The cost of building the matrix: measuring, simulating schedules, and the page made of it."""
