"""What operators see and set: counts, limits, logs, traces, the control listener."""
