"""The figures of a run's page: each a pure function of result rows, records or curves; escaped markup or data out."""
