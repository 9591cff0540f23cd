"""Events of Phoenix topics: received live, written to a recording, played back."""
