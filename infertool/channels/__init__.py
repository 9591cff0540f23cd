"""What comes on topics: live, kept in a record, played again."""
