"""The inputs of evaluators; reconstruction of single images; the report of a sweep."""
