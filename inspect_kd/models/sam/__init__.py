"""SAM for a teacher: safe loading, self-perception tuning, prompts with the errors of a heatmap."""
