"""The `spectrum` command: flags into library calls, events into what people see."""
