//! What every binary needs: logs, /livez /readyz /metrics, shutdown.
