"""What Prometheus is told: the metrics, and the page that it reads."""
