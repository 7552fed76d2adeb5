"""Statistics of records: intervals, contrasts, verdicts and the comparison of arms."""
