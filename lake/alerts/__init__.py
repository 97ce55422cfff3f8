"""Alerts: evaluate rules, plan messages, and deliver them through channels."""
