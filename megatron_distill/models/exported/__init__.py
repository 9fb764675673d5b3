"""Models that transformers has no class for, as files that go with an exported folder; they import nothing of ours."""
