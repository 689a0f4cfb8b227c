"""SAM as a teacher needs it: safe loading, self-perception tuning, prompts that err as a heatmap errs."""
