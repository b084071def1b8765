"""Many rows: `llm.map`, whose finished rows are on disk, so that what was answered is never asked again."""
